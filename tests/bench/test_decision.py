from dataclasses import replace
from itertools import product

import pytest

from stages.bench.decision import Evidence, decide
from stages.bench.interval import Interval

INTERVALS = {
    "faster": Interval(2.0, 1.9, 2.1),
    "slower": Interval(0.5, 0.4, 0.6),
    "equivalent": Interval(1.0, 0.99, 1.01),
    "inconclusive": Interval(1.0, 0.8, 1.2),
}

EVIDENCE = Evidence(
    quantized=True,
    without_int8=(),
    parity_passed=True,
    speedup=INTERVALS["faster"],
    size_ratio=0.25,
    max_size_ratio=0.9,
    place="on a Model T, avx2, 1 thread, batch 1",
    overhead="",
    operators="ConvInteger takes 81% of the INT8 model's time; in fp32 Conv took 12%",
    remedy="Set quantize.method to static",
    noise="",
)


@pytest.mark.parametrize(
    ("quantized", "parity", "verdict", "size_ratio", "max_size_ratio"),
    list(product((True, False), (True, False), INTERVALS, (0.25, 0.95, 1.0, 1.2), (0.9, 1.5, None))),
)
def test_int8_only_where_parity_passed_and_it_is_faster_or_as_fast_and_smaller(
    quantized: bool, parity: bool, verdict: str, size_ratio: float, max_size_ratio: float | None
) -> None:
    evidence = replace(
        EVIDENCE,
        quantized=quantized,
        parity_passed=parity,
        speedup=INTERVALS[verdict],
        size_ratio=size_ratio,
        max_size_ratio=max_size_ratio,
    )
    decision = decide(evidence)
    smaller = size_ratio < 1 and size_ratio <= (max_size_ratio or 1)
    wins = verdict == "faster" or (verdict == "equivalent" and smaller)
    assert decision.deploy == ("int8" if quantized and parity and wins else "fp32")
    assert decision.reason.endswith(".")
    assert ".." not in decision.reason
    if quantized:
        assert str(evidence.speedup) in decision.reason
        assert evidence.place in decision.reason


def test_a_forest_is_told_that_trees_gain_nothing() -> None:
    decision = decide(replace(EVIDENCE, quantized=False, without_int8=("TreeEnsembleClassifier",)))
    assert "TreeEnsembleClassifier" in decision.reason
    assert "gain nothing" in decision.reason
    assert "Skip quantization" in decision.reason


def test_nothing_quantized_for_another_reason_points_to_the_nodes() -> None:
    assert "metrics/details/nodes.csv" in decide(replace(EVIDENCE, quantized=False)).reason


def test_slower_names_the_operator_and_the_remedy() -> None:
    reason = decide(replace(EVIDENCE, speedup=INTERVALS["slower"])).reason
    assert "ConvInteger takes 81%" in reason
    assert "Set quantize.method to static." in reason


def test_inconclusive_names_the_noise() -> None:
    evidence = replace(EVIDENCE, speedup=INTERVALS["inconclusive"], noise="the hypervisor took 9% of the CPU time")
    assert "the hypervisor took 9%" in decide(evidence).reason
    assert "bench.max_seconds" in decide(evidence).reason


def test_equivalent_but_not_smaller_names_the_rule() -> None:
    reason = decide(replace(EVIDENCE, speedup=INTERVALS["equivalent"], size_ratio=0.95)).reason
    assert "0.95 times the size" in reason
    assert "gate.max_size_ratio is 0.9" in reason


def test_a_missed_parity_outweighs_any_speed() -> None:
    decision = decide(replace(EVIDENCE, parity_passed=False))
    assert decision.deploy == "fp32"
    assert "parity.abs_tol" in decision.reason
