"""The rules and the decision that follows from them, on small metrics."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.base.errors import StageError
from stages.common.base.params import Gate
from stages.common.rule import Outcome
from stages.gate.decision import Deployment, decide
from stages.gate.inputs import Evidence, Figures, Host, Speedup
from stages.gate.rules import evaluate_rules
from tests.gate import trees

OK, BAD, OFF, NA = Outcome.PASSED, Outcome.FAILED, Outcome.OFF, Outcome.NOT_APPLICABLE


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def figures(**changes: Any) -> Figures:
    trees.write(Path(), **changes)
    return Evidence.read().figures()


def decided(limits: Gate, **changes: Any) -> Deployment:
    read = figures(**changes)
    return decide(read, evaluate_rules(read, limits))


@pytest.mark.parametrize(
    ("name", "limit", "drift", "said"),
    [
        (
            "abs_tol",
            0.04,
            {"max_abs": 0.08},
            "(max_abs 0.08), beyond parity.abs_tol 0.04: quantization",
        ),
        ("abs_tol", 0.04, {"max_abs": 0.04}, ""),
        ("mean_tol", 0.01, {"max_abs": 0.5, "mean_abs": 0.001}, ""),
        ("max_nrmse", 0.1, {"nrmse": None}, ""),
        ("min_sqnr_db", 30, {"sqnr_db": 20}, "(sqnr_db 20), beyond parity.min_sqnr_db 30"),
        ("min_sqnr_db", 30, {"sqnr_db": 40}, ""),
        ("max_flip_rate", 0.01, {"max_abs": 1.0}, ""),
    ],
)
def test_a_drift_beyond_a_tolerance_is_not_blamed_on_quantization(
    name: str, limit: float, drift: dict[str, Any], said: str
) -> None:
    rule = {"name": name, "value": 0.0, "limit": limit, "margin": limit, "outcome": "passed", "output": "p"}
    for outcome in ({}, trees.NOTHING, {"parity__passed": False}):
        changes: dict[str, Any] = outcome | {"parity_details__rules": [rule]}
        plain = decided(Gate(), **changes).reason
        told = decided(Gate(), **changes, export_details__drift={"p": drift}).reason
        assert (told == plain) == (not said)
        assert told.startswith(plain)
        assert said in told


@pytest.mark.parametrize(
    ("limits", "changes", "outcomes", "deploy"),
    [
        (Gate(), {}, [OK, OK, OFF, OK, OK], "int8"),
        (Gate(require_quantized=True), {}, [OK, OK, OK, OK, OK], "int8"),
        (Gate(), trees.MISS, [BAD, OK, OFF, OK, OK], "fp32"),
        (Gate(), {"parity__judged__samples": 99}, [OK, BAD, OFF, OK, OK], "fp32"),
        (Gate(), {"parity__judged__samples": 100}, [OK, OK, OFF, OK, OK], "int8"),
        (Gate(min_samples=None), {"parity__judged__samples": 2}, [OK, OFF, OFF, OK, OK], "int8"),
        (Gate(), {"quantize__size__int8_mb": 3.6}, [OK, OK, OFF, OK, OK], "int8"),
        (Gate(), {"quantize__size__int8_mb": 3.61}, [OK, OK, OFF, BAD, OK], "fp32"),
        (Gate(max_size_ratio=None), {"quantize__size__int8_mb": 9.0}, [OK, OK, OFF, OFF, OK], "int8"),
        (Gate(), trees.speedup(0.98, 1.02, "equivalent"), [OK, OK, OFF, OK, OK], "int8"),
        (Gate(), trees.speedup(0.92, 0.96, "slower"), [OK, OK, OFF, OK, BAD], "fp32"),
        (Gate(), trees.speedup(0.98, 1.2, "inconclusive"), [OK, OK, OFF, OK, BAD], "fp32"),
        (Gate(min_speedup=0.9), trees.speedup(0.92, 0.96, "slower"), [OK, OK, OFF, OK, OK], "int8"),
        (Gate(min_speedup=1.95), {}, [OK, OK, OFF, OK, BAD], "fp32"),
        (Gate(min_speedup=None), trees.speedup(0.1, 0.2, "slower"), [OK, OK, OFF, OK, OFF], "int8"),
        (
            Gate(min_speedup=None, max_size_ratio=None),
            {**trees.speedup(0.1, 0.2, "slower"), "quantize__size__int8_mb": 4.1},
            [OK, OK, OFF, OFF, OFF],
            "fp32",
        ),
        (
            Gate(),
            {"bench__speedup": {"ratio": None, "low95": None, "high95": None, "verdict": None}},
            [OK, OK, OFF, OK, BAD],
            "fp32",
        ),
        (Gate(), trees.NOTHING, [OK, NA, OFF, NA, NA], "fp32"),
        (Gate(require_quantized=True), trees.NOTHING, [OK, NA, BAD, NA, NA], "fp32"),
    ],
)
def test_each_rule_checks_one_figure_against_one_limit(
    limits: Gate, changes: Any, outcomes: list[Outcome], deploy: str
) -> None:
    read = figures(**changes)
    rules = evaluate_rules(read, limits)
    assert [rule.outcome for rule in rules] == outcomes
    assert decide(read, rules).deploy == deploy
    assert all(rule.message for rule in rules if rule.failed)
    assert all((rule.margin or 0) >= 0 for rule in rules if rule.outcome is OK)


BAND = 0.97


def verdict_of(low: float, high: float) -> str:
    """bench's definition, in docs/bench.md."""
    if low >= BAND and high <= 1 / BAND:
        return "equivalent"
    return "faster" if low > 1 else "slower" if high < 1 else "inconclusive"


def test_the_default_limit_is_the_edge_of_the_verdict_equivalent() -> None:
    assert Gate().min_speedup == BAND


@given(st.floats(0.5, 2), st.floats(0, 0.5))
def test_by_default_the_gate_never_contradicts_the_verdict(low: float, width: float) -> None:
    verdict = verdict_of(low, low + width)
    read = Figures(
        quantized=True,
        size_ratio=0.25,
        without_int8=(),
        parity_passed=True,
        samples=500,
        parity_failures=(),
        untried=(),
        parity_advice=(),
        speedup=Speedup(low + width / 2, low, low + width, verdict),
        drift="",
        findings=(),
        noise="",
        host=Host("abc", "A CPU", "avx2", 2, "1.32.0", 1, 1),
    )
    rules = evaluate_rules(read, Gate())
    passed = verdict in ("faster", "equivalent")
    assert rules[4].failed is not passed
    assert decide(read, rules).deploy == ("int8" if passed else "fp32")


def test_a_low_end_between_one_over_1_03_and_0_97_fails_the_gate_as_it_fails_the_verdict() -> None:
    """0.9705 was once outside bench's band (1/1.03 = 0.9709), but within the gate's limit (0.97)."""
    assert decided(Gate(), **trees.speedup(0.9705, 0.99, verdict_of(0.9705, 0.99))).deploy == "int8"
    assert decided(Gate(), **trees.speedup(0.9695, 0.99, verdict_of(0.9695, 0.99))).deploy == "fp32"


@pytest.mark.parametrize(
    ("limits", "changes", "expected"),
    [
        (
            Gate(),
            {},
            "INT8 is faster: speed-up 2 (1.9 to 2.1) at batch 1 with 1 thread on avx512_vnni. Its file is 4 times",
        ),
        (
            Gate(),
            trees.MISS,
            "regardless of speed (speed-up 2 (1.9 to 2.1)). abs_tol of 'probabilities' is 0.419, but the limit is",
        ),
        (
            Gate(),
            {**trees.MISS, "parity_details__rules": [trees.UNLABELLED]},
            ". max_task_drop: the evaluation data has no labels.",
        ),
        (
            Gate(),
            {**trees.MISS, "parity_details__rules": [trees.OTHER_SHAPES]},
            "(1.9 to 2.1)). In 'det_boxes', shapes differ for 15 samples, e.g. [2, 4] and [1, 4].",
        ),
        (Gate(), trees.NOTHING, "both files hold the same model; metrics/details/nodes.csv says why. Ship fp32."),
        (
            Gate(),
            {**trees.NOTHING, "parity_details__untried": ["method=static"]},
            "had no time to try method=static: raise parity.advice_seconds, or ship fp32.",
        ),
        (
            Gate(),
            {**trees.NOTHING, "bench_details__without_int8": ["TreeEnsembleClassifier"]},
            "TreeEnsembleClassifier has no INT8 form",
        ),
        (Gate(), trees.speedup(0.8, 0.9, "slower"), "MatMul takes 90% of the INT8 model's time."),
        (
            Gate(),
            {**trees.speedup(0.8, 1.3, "inconclusive"), "bench_details__noise": {"finding": "the CPU was shared"}},
            "While it was timed, the CPU was shared. Run bench again",
        ),
        (
            Gate(),
            {"parity__judged__samples": 1},
            "Parity judged 1 sample, fewer than gate.min_samples 100: passing proves little. Give export more",
        ),
        (
            Gate(),
            {**trees.MISS, "parity__judged__samples": 99},
            "Parity judged 99 samples, fewer than gate.min_samples 100. Give export more",
        ),
        (Gate(min_speedup=3), {}, "is below gate.min_speedup 3"),
        (
            Gate(),
            {"quantize__size__int8_mb": 4.4},
            "1.100 times the size of the fp32 file, above gate.max_size_ratio 0.9",
        ),
        (
            Gate(require_quantized=True),
            trees.NOTHING,
            "gate.require_quantized demands an INT8 model",
        ),
        (Gate(min_speedup=0.5), trees.speedup(0.8, 0.9, "slower"), "slower, which the gate's rules allow"),
        (Gate(min_speedup=None), trees.speedup(0.8, 1.9, "inconclusive"), "is unknown, and no rule requires it"),
    ],
)
def test_the_reason_says_why(limits: Gate, changes: Any, expected: str) -> None:
    reason = decided(limits, **changes).reason
    assert expected in reason
    assert reason.endswith(".")
    assert ".." not in reason


def test_the_advice_is_one_command_that_was_tried_or_measures_again() -> None:
    assert decided(Gate(), **trees.MISS).advice == "dvc exp run -S quantize.reduce_range=true"
    again = decided(Gate(), **trees.speedup(0.8, 1.3, "inconclusive")).advice
    assert again == "dvc repro --force --single-item bench"
    assert decided(Gate()).advice is None
    tried = {"parity_details__advice": [{"command": "dvc exp run -S quantize.method=stored", "effect": ""}]}
    assert decided(Gate(), **tried).advice is None
    stored = "dvc exp run -S quantize.method=stored"
    assert decided(Gate(), **tried, **trees.speedup(0.7, 0.8, "slower")).advice == stored
    assert decided(Gate(max_size_ratio=0.1), **tried).advice == stored
    assert decided(Gate(), **tried, **trees.NOTHING).advice == stored


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("parity__passed", r"metrics/parity\.json has no passed\. Run parity again\."),
        ("bench__speedup__low95", r"metrics/bench\.json has no speedup\.low95\. Run bench again\."),
        ("quantize__size", r"metrics/quantize\.json has no size\.int8_mb\. Run quantize again\."),
    ],
)
def test_a_missing_figure_is_named(change: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        figures(**{change: None})
