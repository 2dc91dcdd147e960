"""The examples: the commands of their pages run as printed, and the pages' promises hold."""

import csv
import io
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


@pytest.fixture(params=[name for name in EXAMPLES if name != "05_two_models"])
def finished(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Project]:
    """An example that ran in a clone."""
    project = clone(tmp_path / "project")
    for command in commands(request.param):
        project.run("sh", "-ec", command)
    return request.param, project


@pytest.mark.extended
@pytest.mark.slow
def test_an_example_does_what_its_page_says(finished: tuple[str, Project]) -> None:
    name, project = finished
    export, quantize, parity, gate = (project.metrics(stage) for stage in ("export", "quantize", "parity", "gate"))
    expected: dict[str, dict[str, Any]] = {
        "01_tabular_text_columns": {"status": "quantized", "nodes": 3, "smaller": 3, "deploy": None},
        "02_xgboost_stays": {"status": "nothing_to_quantize", "nodes": 0, "smaller": 1, "deploy": "fp32"},
        "03_image_cnn_static": {"status": "quantized", "nodes": 3, "smaller": 3, "deploy": None},
        "04_embedding_transformer": {"status": "quantized", "nodes": 7, "smaller": 3.4, "deploy": None},
    }
    page = expected[name]
    assert export["drift"]["flips"] in (0, None)
    assert quantize["status"] == page["status"]
    assert quantize["nodes"]["quantized"] == page["nodes"]
    assert quantize["size"]["times_smaller"] >= page["smaller"]
    assert parity["passed"] is True
    assert page["deploy"] in (None, gate["deploy"])


@pytest.mark.extended
@pytest.mark.slow
def test_two_models_have_two_verdicts_and_one_report(tmp_path: Path) -> None:
    project = clone(tmp_path / "project")
    for command in commands("05_two_models"):
        project.run("sh", "-ec", command)
    images, trees = (Project(tmp_path / "two" / name, project.env) for name in ("images", "trees"))
    assert images.metrics("quantize")["nodes"]["quantized"] == 3
    assert (trees.metrics("quantize")["status"], trees.metrics("gate")["deploy"]) == ("nothing_to_quantize", "fp32")
    report = (tmp_path / "two" / "report.md").read_text()
    assert re.findall(r"^# `(.*)`", report, re.MULTILINE) == ["images", "trees"]
    assert re.search(r"^\| `trees` *\| ✅ Deploy fp32", report, re.MULTILINE)
    shown = Project(tmp_path / "two", project.env).run("dvc", "metrics", "show").stdout
    assert "images/metrics/gate.json" in shown
    assert "trees/metrics/gate.json" in shown
    # An experiment on one of the models has its own setting, stages and row.
    two = Project(tmp_path / "two", project.env)
    two.commit("Two models")
    knob = "images/params.yaml:quantize.per_channel"
    done = two.run("dvc", "exp", "run", "--name", "one-scale", "-S", f"{knob}=false", "gate@images").stdout
    assert "Running stage 'quantize@images'" in done
    assert "@trees" not in done
    (row,) = [
        row
        for row in csv.DictReader(io.StringIO(two.run("dvc", "exp", "show", "--csv").stdout))
        if row["Experiment"] == "one-scale"
    ]
    assert row[knob] == "False"


def test_every_example_is_listed() -> None:
    listed = re.findall(r"^\| \[(\S+)\]\(\1\)", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE)
    assert listed == EXAMPLES
