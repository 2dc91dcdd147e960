"""Strain: the share of a tolerance that a rule uses."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.common.judging.rules import largest_strain, strain
from stages.common.rule import Outcome, Rule
from stages.quantize.auto.strain import at_sample_count


def rule(name: str, value: float | str | None, limit: float, passed: bool) -> Rule:
    return Rule(name, value, limit, None, Outcome.PASSED if passed else Outcome.FAILED)


@pytest.mark.parametrize(
    ("name", "value", "limit", "share"),
    [
        ("abs_tol", 0.02, 0.04, 0.5),
        ("max_nrmse", 0.2, 0.1, 2.0),
        ("min_sqnr_db", 40.0, 20.0, 0.1),
        ("min_sqnr_db", "inf", 20.0, 0.0),
        ("min_cosine", 0.9975, 0.99, 0.5),
        ("max_task_drop", -0.01, 0.02, 0.0),
        ("abs_tol", 0.0, 0.0, 0.0),
        ("abs_tol", 0.1, 0.0, math.inf),
        ("nonfinite", 3, 0, math.inf),
    ],
)
def test_the_share_is_in_units_of_amplitude(name: str, value: float | str, limit: float, share: float) -> None:
    passed = share <= 1
    assert strain(rule(name, value, limit, passed)) == pytest.approx(share)


@given(
    st.sampled_from(["abs_tol", "mean_tol", "max_nrmse", "max_flip_rate", "min_sqnr_db", "min_cosine"]),
    st.floats(1e-3, 0.99),
    st.floats(1e-3, 0.99),
)
@settings(deadline=None)
def test_a_rule_passes_where_its_strain_is_at_most_one(name: str, value: float, limit: float) -> None:
    assume(abs(value - limit) > 1e-6)
    passed = value >= limit if name.startswith("min_") else value <= limit
    assert (strain(rule(name, value, limit, passed)) <= 1 + 1e-9) == passed


def test_what_could_not_be_measured_fails() -> None:
    assert largest_strain([rule("abs_tol", 0.01, 0.04, True), rule("max_flip_rate", None, 0.1, False)]) == math.inf
    assert largest_strain([]) == 0


@given(st.integers(0, 20), st.integers(20, 200))
@settings(deadline=None)
def test_flips_are_judged_as_at_the_number_that_parity_judges(flips: int, count: int) -> None:
    figures = {
        "judged": {"samples": count},
        "decisions": {"count": count, "flips": flips, "flip_rate_high95": 1.0},
    }
    bounds = [at_sample_count(figures, times * count)["decisions"]["flip_rate_high95"] for times in (1, 3, 9)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] >= flips / count
