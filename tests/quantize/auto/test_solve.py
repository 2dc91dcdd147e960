"""The solver against brute force, and the frontier that it traces."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.quantize.auto.choices import BLOCKED, STATIC
from stages.quantize.auto.problem import FLOAT, Junction, Option, Prices, Problem, point
from stages.quantize.auto.solve import EXHAUSTIVE, best


def value(problem: Problem, assignment: tuple[int, ...], prices: Prices) -> float:
    predicted = point(problem, assignment)
    return prices.us * predicted.us + prices.size * predicted.size + prices.noise * predicted.noise


@st.composite
def problems(draw: st.DrawFn, most: int = 5) -> Problem:
    """Chains and branches of nodes with a float, a dynamic and a static option, and borders between them."""
    count = draw(st.integers(2, most))
    us = st.floats(0.5, 50)
    noise = st.floats(1e-7, 1e-3)
    options = tuple(
        (
            Option(FLOAT, draw(us), 0.0, 400, BLOCKED, BLOCKED),
            Option("dynamic", draw(us), draw(noise), 100, "dynamic", FLOAT),
            Option("static", draw(us), draw(noise), 100, STATIC, STATIC),
        )
        for _ in range(count)
    )
    junctions = []
    for consumer in range(1, count):
        producer = draw(st.integers(0, consumer - 1))
        cost = draw(st.floats(0.1, 20))
        into = {STATIC: cost, "dynamic": cost / 2, BLOCKED: cost / 3}
        junctions.append(
            Junction((producer,), (consumer,), draw(st.booleans()), into, {STATIC: cost, BLOCKED: cost / 3})
        )
    return Problem(tuple(f"n{n}" for n in range(count)), options, tuple(junctions), 5.0, 1000)


def brute(problem: Problem, prices: Prices) -> float:
    return min(value(problem, assignment, prices) for assignment in product(*(range(len(o)) for o in problem.options)))


@given(problems(), st.floats(0, 1e5))
@settings(max_examples=100, deadline=None)
def test_small_problems_are_solved_exactly(problem: Problem, noise: float) -> None:
    prices = Prices(1.0, 1e-4, noise)
    assert value(problem, best(problem, prices), prices) == pytest.approx(brute(problem, prices))


def test_the_descent_finds_the_optimum_or_comes_within_two_percent_in_95_of_100(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stages.quantize.auto.solve.EXHAUSTIVE", 1)
    assert EXHAUSTIVE > 1
    near = []

    @given(problems(most=7), st.floats(0, 1e5))
    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    def compare(problem: Problem, noise: float) -> None:
        prices = Prices(1.0, 1e-4, noise)
        near.append(value(problem, best(problem, prices), prices) <= 1.02 * brute(problem, prices))

    compare()
    assert sum(near) >= 0.95 * len(near)


def test_an_island_pays_its_borders() -> None:
    """Three convolutions in a row: INT8 gains in each, less than its borders cost in one of them alone."""
    options = (Option(FLOAT, 10, 0, 4), Option("static", 6, 1e-6, 1, STATIC, STATIC))
    slow = (Option(FLOAT, 10, 0, 4), Option("static", 60, 1e-6, 1, STATIC, STATIC))
    border = {"into": {STATIC: 3.0}, "back": {STATIC: 3.0}}
    ends = (Junction((), (0,), True, **border), Junction((2,), (), True, **border))
    inside = tuple(Junction((n,), (n + 1,), False, **border) for n in range(2))
    long = Problem(("a", "b", "c"), (options, options, options), (*ends, *inside))
    island = Problem(("a", "b", "c"), (slow, options, slow), (*ends, *inside))
    assert best(long, Prices(1.0, 0.0)) == (1, 1, 1)
    assert best(island, Prices(1.0, 0.0)) == (0, 0, 0)


def test_a_conversion_is_paid_once_however_many_nodes_read_it() -> None:
    shared = Junction((), (0, 1), True, {"dynamic": 4.0})
    assert shared.us([], ["dynamic", "dynamic"]) == 4.0
    assert shared.us([], ["dynamic", FLOAT]) == 4.0
    assert shared.us([], [FLOAT, FLOAT]) == 0.0
