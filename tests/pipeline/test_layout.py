"""dvc.yaml agrees with the code: the same paths, and exactly the dependencies that the code has."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.common.base import paths, yaml12
from stages.quantize.auto.evidence import FRONTIER_HEADER
from tests.pipeline.conftest import ROOT
from tests.plots import unknown_fields

STAGES = ("host", "export", "quantize", "parity", "bench", "gate")


def pipeline() -> dict[str, Any]:
    tree: dict[str, Any] = yaml12.load((ROOT / "dvc.yaml").read_text())
    return tree


def outs(stage: dict[str, Any]) -> set[str]:
    return {name for out in stage.get("outs", ()) for name in ([out] if isinstance(out, str) else out)}


def imported(source: str) -> Iterator[str]:
    """The modules that Python code imports; `from a import b` may import the module a.b, so it yields a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides which room it reaches"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str, root: Path = ROOT) -> str | None:
    """The file or folder of `stages` that a module belongs to, as dvc.yaml names it; None for a foreign module."""
    names = module.split(".")
    if names[0] != "stages" or len(names) < 2:
        return None
    if names[1] != "common":
        return f"stages/{names[1]}" if (root / "stages" / names[1]).is_dir() else None
    if len(names) < 3:
        return None
    part = root / "stages/common" / names[2]
    if part.is_dir():
        return f"stages/common/{names[2]}"
    return f"stages/common/{names[2]}.py" if part.with_suffix(".py").is_file() else None


def sources(part: str, root: Path = ROOT) -> list[Path]:
    path = root / part
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def needed(part: str, root: Path = ROOT) -> set[str]:
    """Every part of `stages` that the code of `part` imports, directly or through other parts, itself included."""
    parts: set[str] = set()
    waiting = {part}
    while waiting:
        parts |= waiting
        direct = {
            part_of(module, root)
            for name in waiting
            for file in sources(name, root)
            for module in imported(file.read_text())
        }
        waiting = {name for name in direct if name is not None} - parts
    return parts


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_imports(stage: str) -> None:
    entry = pipeline()["stages"][stage]
    assert entry["cmd"] == f"python -m stages.{stage}"
    declared = [dep for dep in entry["deps"] if dep.startswith("stages/")]
    assert declared == sorted(needed(f"stages/{stage}"))


@pytest.mark.parametrize("room", [*STAGES, "report"])
def test_a_room_imports_parts_of_common_and_no_other_room(room: str) -> None:
    others = needed(f"stages/{room}") - {f"stages/{room}"}
    assert {name for name in others if not name.startswith("stages/common/")} == set()


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("from stages import bench", "stages/bench"),
        ("import stages.bench.noise", "stages/bench"),
        ("from stages.bench.noise import Noise", "stages/bench"),
        ("def f():\n    from stages.common import rule", "stages/common/rule.py"),
        ("from stages.common.model.sessions import open_session", "stages/common/model"),
    ],
)
def test_every_form_of_import_is_seen(tmp_path: Path, line: str, part: str) -> None:
    for name in ("bench", "common/model", "parity"):
        (tmp_path / "stages" / name).mkdir(parents=True)
    (tmp_path / "stages/common/rule.py").touch()
    (tmp_path / "stages/common/model/sessions.py").touch()
    (tmp_path / "stages/parity/stage.py").write_text(line)
    assert needed("stages/parity", tmp_path) == {"stages/parity", part}


def test_what_a_part_of_common_imports_counts_too(tmp_path: Path) -> None:
    (tmp_path / "stages/common").mkdir(parents=True)
    (tmp_path / "stages/parity").mkdir()
    (tmp_path / "stages/parity/stage.py").write_text("from stages.common import rule")
    (tmp_path / "stages/common/rule.py").write_text("from stages.common import isa")
    (tmp_path / "stages/common/isa.py").touch()
    assert needed("stages/parity", tmp_path) == {
        "stages/parity",
        "stages/common/rule.py",
        "stages/common/isa.py",
    }


def test_stages_start_without_sympy_and_onnx_ir_has_it_once_it_needs_it() -> None:
    code = "import sys, stages.export.stage, stages.quantize.stage; print('sympy.core' in sys.modules)"
    code += "; import onnx_ir; print(onnx_ir.SymbolicDim('N') + 1)"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[:2] == ["False", "N + 1"]


def test_dvc_yaml_and_the_code_name_the_same_paths() -> None:
    declared = set().union(*(outs(stage) for stage in pipeline()["stages"].values()))
    known = {value.as_posix() for value in vars(paths).values() if isinstance(value, Path)}
    external = {f"{model.as_posix()}.data" for model in (paths.FP32_MODEL, paths.INT8_MODEL)}
    assert declared == known - {"params.yaml", "artifacts", "metrics", "metrics/details"} | external


def test_headlines_are_metrics_and_evidence_is_not() -> None:
    declared = set().union(*(outs(stage) for stage in pipeline()["stages"].values()))
    headlines = {out for out in declared if Path(out).parent == paths.METRICS and out != paths.HOST.as_posix()}
    assert set(pipeline()["metrics"]) == headlines


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_and_evidence_live_in_git(stage: str) -> None:
    for out in pipeline()["stages"][stage]["outs"]:
        name, options = next(iter(out.items()))
        assert options["desc"]
        assert options.get("cache", True) is not name.startswith("metrics/")


def test_a_limit_of_the_gate_reaches_the_gate_alone() -> None:
    stages = pipeline()["stages"]
    readers = {
        name for name, stage in stages.items() if any(str(p).startswith("gate") for p in stage.get("params", ()))
    }
    assert readers == {"gate"}
    assert not any("metrics/parity.json" in stages[name]["deps"] for name in ("bench", "quantize", "export"))


def test_the_template_of_the_frontier_reads_columns_that_exist() -> None:
    tree = json.loads((ROOT / ".dvc/plots/auto_frontier.json").read_text(encoding="utf-8"))
    assert unknown_fields(tree, set(FRONTIER_HEADER)) == set()
