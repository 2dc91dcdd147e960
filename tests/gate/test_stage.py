"""The stage as a process: exit codes, files, screen, and metrics that do not belong together."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.common.base import files, paths
from stages.common.base.errors import StageError
from stages.gate.provenance import changes_since_lock, stale
from tests.gate import trees

ROOT = Path(__file__).resolve().parents[2]


def gate(folder: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "stages.gate", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("passes", "experiment", "strict", "code"),
    [
        (True, False, False, 0),
        (True, True, True, 0),
        (False, False, False, 1),
        (False, True, False, 0),
        (False, True, True, 1),
        (False, False, True, 1),
    ],
)
def test_exit_codes(tmp_path: Path, passes: bool, experiment: bool, strict: bool, code: int) -> None:
    trees.write(tmp_path, **({} if passes else trees.MISS))
    env = {"DVC_EXP_NAME": "one"} if experiment else {}
    done = gate(tmp_path, *(["--strict"] if strict else []), **env)
    assert done.returncode == code
    both = done.stdout + done.stderr
    assert both.count("The gate is ") == 1
    assert ("The gate is open: deploy int8." in done.stdout) == passes
    assert ("The gate is closed (parity): deploy fp32." in both) != passes
    assert json.loads((tmp_path / paths.GATE).read_text()) == {"open": passes, "deploy": "int8" if passes else "fp32"}


def test_the_details_hold_the_reason_and_every_rule_with_its_margin(tmp_path: Path) -> None:
    trees.write(tmp_path)
    gate(tmp_path)
    details = json.loads((tmp_path / paths.GATE_DETAILS).read_text())
    assert details["reason"].startswith("Parity passed, and INT8 is faster")
    assert details["advice"] is None
    assert {
        rule["name"]: (rule["value"], rule["limit"], rule["margin"], rule["outcome"]) for rule in details["rules"]
    } == {
        "parity": ("passed", "passed", None, "passed"),
        "min_samples": (500, 100, 400, "passed"),
        "require_quantized": ("quantized", None, None, "off"),
        "max_size_ratio": (0.25, 0.9, 0.65, "passed"),
        "min_speedup": (1.9, 0.97, 0.93, "passed"),
    }
    assert details["host"]["machine_id"] == "abc"
    assert details["notes"] == [
        "dvc.lock does not exist, so only models, machine and threads were checked, not params, data and code."
    ]


def test_help_states_the_exit_codes_of_a_closed_gate(tmp_path: Path) -> None:
    shown = gate(tmp_path, "--help").stdout
    assert "Exit codes: 0 the gate is open; 1 it is closed" in " ".join(shown.split())
    assert "whatever the verdict" not in shown


def test_the_screen_shows_no_rule_that_is_off(tmp_path: Path) -> None:
    trees.write(tmp_path, parity__judged__samples=12345)
    shown = gate(tmp_path).stdout
    assert "off" not in shown.split()
    assert "12345" in shown.split()  # not 1.23e+04
    assert max(map(len, shown.splitlines())) <= 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"bench_details__measured__machine_id": "other"},
            "measured on machine other, but metrics/host.json describes abc",
        ),
        (
            {"parity_details__judged__isa": "avx2"},
            "judged on avx2 with ONNX Runtime 1.32.0, but metrics/host.json describes avx512_vnni with 1.32.0",
        ),
        ({"parity_details__judged__onnxruntime": "1.31.0"}, "judged on avx512_vnni with ONNX Runtime 1.31.0"),
        (
            {"bench_details__measured__sha256": {"fp32": "f" * 64, "int8": "0" * 64}},
            "parity and bench used different versions of artifacts/model.int8.onnx",
        ),
        (
            {"parity_details__judged__threads": 2},
            "metrics/parity.json was measured with serving.threads 2, but params.yaml",
        ),
        ({"bench_details__measured__threads": 4}, "metrics/bench.json was measured with serving.threads 4"),
    ],
)
def test_metrics_that_do_not_belong_together_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    trees.write(tmp_path, **changes)
    done = gate(tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / paths.GATE).exists()


def test_without_a_lock_the_models_must_be_those_that_were_judged(tmp_path: Path) -> None:
    model = tmp_path / paths.INT8_MODEL
    model.parent.mkdir()
    model.write_bytes(b"weights")
    sha = {"fp32": "f" * 64, "int8": files.sha256(model)}
    changes = {"parity_details__judged__sha256": sha, "bench_details__measured__sha256": sha}
    trees.write(tmp_path, **changes)
    assert gate(tmp_path).returncode == 0
    model.write_bytes(b"others")
    assert "artifacts/model.int8.onnx has changed since parity and bench ran" in gate(tmp_path).stderr


def test_without_a_lock_a_clone_without_models_is_judged(tmp_path: Path) -> None:
    trees.write(tmp_path)
    done = gate(tmp_path)
    assert done.returncode == 0
    assert "Note: dvc.lock does not exist" in done.stdout


def test_a_workflow_is_told_that_the_lock_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=r"^dvc\.lock is missing, .* run `dvc repro` and commit it\.$"):
        changes_since_lock()


@pytest.mark.parametrize(
    ("lock", "problem"),
    [
        ("stages:\n<<<<<<< HEAD\n  host: {}\n", "is not valid YAML: could not find expected ':' on line 3"),
        ("", "is empty"),
        ("schema: '2.0'\n", "lists no stages"),
    ],
)
def test_a_broken_lock_is_named(tmp_path: Path, lock: str, problem: str) -> None:
    trees.write(tmp_path)
    (tmp_path / "dvc.lock").write_text(lock)
    done = gate(tmp_path)
    message = f"Error: dvc.lock {problem}. Restore it from git, or run `dvc repro` without it.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_a_pipeline_without_its_lock_is_refused(tmp_path: Path) -> None:
    trees.write(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {parity: {cmd: python -m stages.parity}}", encoding="utf-8")
    done = gate(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: dvc.lock is missing, so nothing shows that the metrics belong to the current")


def test_what_changed_is_named_in_the_order_of_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/model.onnx").touch()
    status = {
        "bench": [{"changed deps": {"metrics/host.json": "modified"}}],
        "parity": [
            {"changed deps": {"params.yaml": {"parity": "modified"}, "metrics/host.json": {"cpu.isa": "modified"}}},
            {"changed outs": {"artifacts/model.onnx": "not in cache", "metrics/parity.json": "deleted"}},
            "changed command",
        ],
        "host": ["always changed"],
    }
    lock = {"stages": {"parity": {"params": {"params.yaml": {"parity": {"abs_tol": 0.04, "mean_tol": 0.01}}}}}}
    params = {"parity": {"abs_tol": None, "mean_tol": 0.01}}
    assert list(stale(status, lock, params)) == [
        ("parity", "parity.abs_tol was changed from 0.04 to null"),
        ("parity", "cpu.isa in metrics/host.json was modified"),
        ("parity", "metrics/parity.json is missing"),
        ("parity", "its command in dvc.yaml was changed"),
        ("bench", "metrics/host.json was modified"),
    ]


@pytest.mark.parametrize("stage", ["host", "quantize", "parity", "bench"])
def test_a_missing_file_names_the_stage(tmp_path: Path, stage: str) -> None:
    trees.write(tmp_path)
    (tmp_path / f"metrics/{stage}.json").unlink()
    assert gate(tmp_path).stderr == f"Error: Missing metrics/{stage}.json. Run {stage} first.\n"
