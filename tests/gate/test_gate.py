"""The rules, and the exit codes that follow from them."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.base.errors import StageError
from stages.common.base.params import Gate
from stages.common.rules import Evidence, Outcome, judge

ROOT = Path(__file__).resolve().parents[2]

QUANTIZE: dict[str, Any] = {"status": "quantized", "size": {"fp32_mb": 4.0, "int8_mb": 1.0}}
PARITY: dict[str, Any] = {"passed": True}
BENCH: dict[str, Any] = {
    "speedup": {"low95": 1.9, "high95": 2.1, "verdict": "faster"},
    "deploy": "int8",
    "reason": "It is faster.",
}


def outcomes(limits: Gate, **changes: Any) -> list[Outcome]:
    trees = {"quantize": deepcopy(QUANTIZE), "parity": deepcopy(PARITY), "bench": deepcopy(BENCH)}
    for key, value in changes.items():
        stage, *path = key.split("__")
        node = trees[stage]
        for each in path[:-1]:
            node = node[each]
        node[path[-1]] = value
    return [each.outcome for each in judge(Evidence(**trees), limits)]


OK, BAD, OFF, MOOT = Outcome.PASSED, Outcome.FAILED, Outcome.OFF, Outcome.MOOT


@pytest.mark.parametrize(
    ("limits", "changes", "expected"),
    [
        (Gate(), {}, [OK, OFF, OK, OK]),
        (Gate(require_quantized=True), {}, [OK, OK, OK, OK]),
        (Gate(), {"parity__passed": False}, [BAD, OFF, OK, OK]),
        (Gate(), {"quantize__size__int8_mb": 3.6}, [OK, OFF, OK, OK]),
        (Gate(), {"quantize__size__int8_mb": 3.61}, [OK, OFF, BAD, OK]),
        (Gate(max_size_ratio=None), {"quantize__size__int8_mb": 9.0}, [OK, OFF, OFF, OK]),
        (Gate(), {"bench__speedup__low95": 0.98, "bench__speedup__verdict": "equivalent"}, [OK, OFF, OK, OK]),
        (Gate(), {"bench__speedup__low95": 0.96, "bench__speedup__verdict": "slower"}, [OK, OFF, OK, BAD]),
        (Gate(), {"bench__speedup__low95": 0.98, "bench__speedup__verdict": "inconclusive"}, [OK, OFF, OK, BAD]),
        (Gate(min_speedup=1.95), {}, [OK, OFF, OK, BAD]),
        (Gate(min_speedup=None), {"bench__speedup__low95": 0.1}, [OK, OFF, OK, OFF]),
        (Gate(), {"bench__speedup": {"low95": None, "high95": None, "verdict": None}}, [OK, OFF, OK, BAD]),
        (Gate(), {"quantize__status": "nothing_to_quantize", "bench__speedup__low95": None}, [OK, OFF, MOOT, MOOT]),
        (Gate(require_quantized=True), {"quantize__status": "nothing_to_quantize"}, [OK, BAD, MOOT, MOOT]),
    ],
)
def test_each_rule_holds_one_figure_against_one_limit(limits: Gate, changes: Any, expected: list[Outcome]) -> None:
    assert outcomes(limits, **changes) == expected


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_interval_must_lie_above_the_limit(low: float, limit: float) -> None:
    speed = outcomes(Gate(min_speedup=limit), bench__speedup={"low95": low, "high95": 200.0, "verdict": "faster"})[3]
    assert speed is (OK if low >= limit else BAD)


def test_a_missing_figure_is_named() -> None:
    with pytest.raises(StageError, match=r"metrics/parity\.json has no passed\. Run parity again\."):
        judge(Evidence(QUANTIZE, {}, BENCH), Gate())


@pytest.mark.parametrize(
    ("passed", "experiment", "strict", "code"),
    [
        (True, False, False, 0),
        (True, True, True, 0),
        (False, False, False, 1),
        (False, True, False, 0),
        (False, True, True, 1),
        (False, False, True, 1),
    ],
)
def test_exit_codes(tmp_path: Path, passed: bool, experiment: bool, strict: bool, code: int) -> None:
    (tmp_path / "metrics").mkdir()
    for name, tree in (("quantize", QUANTIZE), ("parity", {"passed": passed}), ("bench", BENCH)):
        (tmp_path / "metrics" / f"{name}.json").write_text(json.dumps(tree))
    env = {"PYTHONPATH": str(ROOT)} | ({"DVC_EXP_NAME": "puffy-auks"} if experiment else {})
    run = subprocess.run(
        [sys.executable, "-m", "stages.gate", *(["--strict"] if strict else [])],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stderr
    assert ("FAILED" in run.stdout) == (not passed)
    assert ("The gate is open: deploy int8. It is faster." in run.stdout) == passed
    assert run.stderr.count("\n") == code
    assert sorted(each.name for each in tmp_path.rglob("*") if each.is_file()) == [
        "bench.json",
        "parity.json",
        "quantize.json",
    ]


def test_without_metrics_the_stage_to_run_is_named(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "stages.gate"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (1, "Error: Missing metrics/quantize.json. Run quantize first.\n")
