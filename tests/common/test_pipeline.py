"""Which stage of which dvc.yaml runs a module here: in this folder or above, with a prefix, or in a matrix."""

from pathlib import Path

import pytest

from stages.common.base import pipeline
from stages.parity.advice import experiment

PLAIN = """\
stages:
  prepare:
    cmd: python -m tools.export
  export:
    cmd: python -m stages.export
    deps: [models]
  judge:
    cmd: python -m stages.gate
"""

MATRIX = """\
stages:
  int8_export:
    matrix:
      model: [a, b]
      size: [1, 2]
    wdir: int8/${item.model}/${item.size}
    cmd: PYTHONPATH=.. python3.11 -m stages.export
    deps: ["../models/${item.model}", "${other}"]
  int8_gate:
    matrix:
      model: [a, b]
      size: [1, 2]
    wdir: int8/${item.model}/${item.size}
    cmd: PYTHONPATH=.. python -m stages.gate
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "int8" / "b" / "2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_beside_dvc_yaml(repository: Path) -> None:
    Path("dvc.yaml").write_text(PLAIN)
    stages = pipeline.here()
    assert {room: stage.name for room, stage in stages.items()} == {"export": "export", "gate": "judge"}
    assert stages["export"].deps == ("models",)
    assert (pipeline.address("gate"), pipeline.address("bench")) == ("judge", "bench")
    assert (pipeline.lock(), pipeline.scope()) == (Path("dvc.lock"), ("", ""))
    assert experiment([("quantize.method", "static")]) == "dvc exp run -S +quantize.method=static"


def test_below_a_dvc_yaml_with_a_matrix(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("dvc.yaml").write_text(MATRIX)
    assert pipeline.here() == {}
    monkeypatch.chdir(repository / "int8" / "b" / "2")
    stage = pipeline.here()["export"]
    assert (stage.name, stage.deps) == ("int8_export@b-2", ("../models/b", "${other}"))
    assert pipeline.address("export") == "../../../dvc.yaml:int8_export@b-2"
    assert pipeline.lock() == Path("../../../dvc.lock")
    assert pipeline.scope() == ("int8/b/2/params.yaml:", "int8_gate@b-2")
    Path("params.yaml").write_text("quantize: {method: dynamic}\n")
    command = "dvc exp run -S int8/b/2/params.yaml:quantize.method=static int8_gate@b-2"
    assert experiment([("quantize.method", "static")]) == command


def test_a_dvc_yaml_above_the_repository_is_not_ours(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = repository / "int8" / "b"
    Path("dvc.yaml").write_text(MATRIX.replace("/${item.size}", ""))
    monkeypatch.chdir(inner)
    assert set(pipeline.here()) == {"export", "gate"}
    (inner / ".dvc").mkdir()
    assert pipeline.here() == {}


@pytest.mark.parametrize("text", ["", "stages: [", "stages: [a]\n", "stages:\n  a: 1\n", "stages:\n  a: {cmd: x}\n"])
def test_what_dvc_refuses_or_others_wrote_has_no_stage_of_ours(repository: Path, text: str) -> None:
    Path("dvc.yaml").write_text(text)
    assert pipeline.here() == {}
    assert pipeline.lock() == Path("dvc.lock")
