"""The examples: the commands of their pages, run as they stand, and what the pages promise."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Project, clone

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(page.parent.name for page in (ROOT / "examples").glob("*/README.md"))


def commands(name: str) -> list[str]:
    """The commands of a page, without those that install: the test environment has all packages."""
    page = (ROOT / "examples" / name / "README.md").read_text()
    listed = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).splitlines()
    return [command for command in listed if not command.startswith("pip ")]


@pytest.fixture(params=EXAMPLES)
def finished(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Project]:
    """An example that ran in a clone."""
    project = clone(tmp_path / "project")
    for command in commands(request.param):
        project.run("sh", "-ec", command)
    return request.param, project


@pytest.mark.slow
def test_an_example_does_what_its_page_says(finished: tuple[str, Project]) -> None:
    name, project = finished
    export, quantize, parity, gate = (project.metrics(stage) for stage in ("export", "quantize", "parity", "gate"))
    expected: dict[str, dict[str, Any]] = {
        "01_tabular_text_columns": {"status": "quantized", "nodes": 3, "smaller": 3, "deploy": None},
        "02_xgboost_stays": {"status": "nothing_to_quantize", "nodes": 0, "smaller": 1, "deploy": "fp32"},
        "03_image_cnn_static": {"status": "quantized", "nodes": 3, "smaller": 3, "deploy": None},
    }
    page = expected[name]
    assert export["drift"]["flips"] in (0, None)
    assert quantize["status"] == page["status"]
    assert quantize["nodes"]["quantized"] == page["nodes"]
    assert quantize["size"]["times_smaller"] >= page["smaller"]
    assert parity["passed"] is True
    assert page["deploy"] in (None, gate["deploy"])


def test_every_example_is_listed() -> None:
    listed = re.findall(r"^\| \[(\S+)\]\(\1\)", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE)
    assert listed == EXAMPLES
