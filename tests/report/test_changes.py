"""What counts as more than noise."""

import pytest
from scipy.stats import binomtest

from stages.report.changes import Mark, binomial_interval, speedup_mark


@pytest.mark.parametrize(("count", "samples"), [(0, 300), (1, 300), (150, 300), (300, 300), (1, 1)])
def test_the_interval_of_a_share_is_the_exact_one(count: int, samples: int) -> None:
    exact = binomtest(count, samples).proportion_ci(0.95, "exact")
    assert binomial_interval(count, samples) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize(
    ("then", "now", "mark"),
    [
        ((1.9, 2.1), (2.17, 2.2), Mark.BETTER),
        ((1.9, 2.1), (1.7, 1.84), Mark.WORSE),
        ((1.9, 2.1), (2.1, 2.2), Mark.NOISE),
        ((3.87, 4.192), (4.238, 4.912), Mark.NOISE),  # one model on a busy machine, a minute apart
        ((1.9, 2.1), (1.0, 3.0), Mark.NOISE),
    ],
)
def test_speedups_differ_where_their_intervals_do_not_overlap(
    then: tuple[float, float], now: tuple[float, float], mark: Mark
) -> None:
    assert speedup_mark(then, now) is mark
