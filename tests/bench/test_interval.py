import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.base.files import rounded
from stages.common.base.params import Gate
from stages.common.timing.summary import EQUIVALENT, Interval, over_launches

log_ratios = st.lists(st.floats(-2, 2), min_size=2, max_size=30)


@pytest.mark.parametrize("launches", [8, 12, 30])
def test_interval_covers_the_truth_in_95_of_100_cases(launches: int) -> None:
    random = np.random.default_rng(0)
    truth = math.log(1.8)
    covered = sum(over_launches(list(random.normal(truth, 0.03, launches))).covers(1.8) for _ in range(2000))
    assert 0.935 < covered / 2000 < 0.965  # three standard errors about 0.95


def test_interval_still_covers_when_measuring_stops_by_its_width() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        values = list(random.normal(0.0, 0.025, 8))
        while over_launches(values).halfwidth > 0.02 and len(values) < 40:
            values.append(random.normal(0.0, 0.025))
        covered += over_launches(values).covers(1)
    assert covered / 1000 > 0.92


@given(log_ratios)
def test_swapping_the_models_inverts_the_interval(values: list[float]) -> None:
    here, swapped = over_launches(values), over_launches([-value for value in values])
    assert swapped.ratio == pytest.approx(1 / here.ratio)
    assert swapped.low == pytest.approx(1 / here.high)
    assert swapped.high == pytest.approx(1 / here.low)


@given(log_ratios)
def test_the_ratio_lies_within_its_interval(values: list[float]) -> None:
    interval = over_launches(values)
    assert interval.low <= interval.ratio * (1 + 1e-12)
    assert interval.ratio <= interval.high * (1 + 1e-12)


def test_agrees_with_a_worked_example() -> None:
    # t for 3 degrees of freedom is 3.182446; mean 0.25, standard deviation 0.1290994, four values.
    interval = over_launches([0.1, 0.2, 0.3, 0.4])
    assert interval.low == pytest.approx(math.exp(0.25 - 3.182446 * 0.1290994 / 2), rel=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.10, 1.20, "faster"),
        (1.001, 1.2, "faster"),
        (0.8, 0.9, "slower"),
        (0.8, 0.999, "slower"),
        (0.98, 1.02, "equivalent"),
        (1.005, 1.025, "equivalent"),
        (0.975, 0.99, "equivalent"),
        (0.9705, 0.99, "equivalent"),
        (0.96, 0.99, "slower"),
        (1.02, 1.03, "equivalent"),
        (0.9, 1.1, "inconclusive"),
        (0.99, 1.04, "inconclusive"),
        (1.0, 1.2, "inconclusive"),
    ],
)
def test_verdict(low: float, high: float, verdict: str) -> None:
    assert Interval(math.sqrt(low * high), low, high).verdict == verdict


@given(st.floats(0.1, 20))
def test_the_text_is_that_of_the_metrics(ratio: float) -> None:
    """Rounding 4.38504 to three digits gives 4.39, but the metrics hold 4.385, which gives 4.38."""
    interval, stored = Interval(ratio, ratio, ratio), Interval(*[rounded(ratio) or 0.0] * 3)
    assert interval.as_in_metrics() == stored
    assert str(interval) == str(stored)


@given(st.floats(0.5, 2), st.floats(0.5, 2))
def test_the_verdict_and_a_gate_that_asks_for_not_slower_never_contradict_each_other(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    verdict = Interval(math.sqrt(low * high), low, high).verdict
    reaches = (rounded(low) or 0) >= EQUIVALENT  # what the gate sees of the low end, and its default limit
    assert Gate().min_speedup == EQUIVALENT
    if verdict == "slower":
        assert not reaches
    if verdict in ("equivalent", "faster"):
        assert reaches
