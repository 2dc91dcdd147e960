"""The best assignment within a budget of noise, against brute force."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.quantize.auto.budget import cheapest
from stages.quantize.auto.problem import Prices, Problem, point
from tests.quantize.auto.test_solve import problems

PRICES = Prices(1.0, 1e-4)


@given(problems(), st.floats(0, 3e-3))
@settings(max_examples=60, deadline=None)
def test_small_problems_are_solved_exactly(problem: Problem, limit: float) -> None:
    found = cheapest(problem, PRICES, limit)
    everything = (point(problem, assignment) for assignment in product(*(range(len(o)) for o in problem.options)))
    best = min(PRICES.value(candidate) for candidate in everything if candidate.noise <= limit)
    assert found.noise <= limit
    assert PRICES.value(found) == pytest.approx(best)
