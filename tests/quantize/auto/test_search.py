"""Walking the frontier and back, with made-up strains."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.quantize.auto.problem import FLOAT, Option, Picks, Problem
from stages.quantize.auto.search import back_towards, fastest_that_passes
from stages.quantize.auto.solve import Point, point


@dataclass(frozen=True)
class Tried:
    strain: float


class Models:
    """Models whose strain is the root of their noise, times a factor of their own."""

    def __init__(self, problem: Problem, scale: float, budget: int = 100, factor: float = 1.0) -> None:
        self.problem, self.scale, self.budget, self.factor = problem, scale, budget, factor
        self.made: list[Picks] = []

    def strain(self, assignment: Picks) -> float:
        wobble = self.factor ** (hash(assignment) % 3 - 1)
        return self.scale * math.sqrt(self.problem.noise(assignment)) * wobble

    def attempt(self, assignment: Picks) -> Tried | None:
        if len(self.made) >= self.budget:
            return None
        self.made.append(assignment)
        return Tried(self.strain(assignment))


def row(count: int) -> tuple[Problem, list[Point]]:
    """Nodes with falling noise, and the frontier that keeps the noisiest ones float, one more each time."""
    options = tuple((Option(FLOAT, 10, 0, 4), Option("dynamic", 4, 2.0**-node, 1)) for node in range(count))
    problem = Problem(tuple(f"n{node}" for node in range(count)), options)
    points = [point(problem, (0,) * kept + (1,) * (count - kept)) for kept in range(count)]
    return problem, points


@given(st.integers(2, 60), st.floats(1e-4, 1e4))
@settings(deadline=None)
def test_the_first_that_passes_is_found_in_few_trials(count: int, scale: float) -> None:
    problem, points = row(count)
    models = Models(problem, scale)
    reached = fastest_that_passes(points, models.attempt, goal=0.85)
    passing = [each for each in points if models.strain(each.assignment) <= 0.85]
    assert (None if reached is None else points[reached]) == (passing[0] if passing else None)
    assert len(models.made) <= 2 + 2 * math.ceil(math.log(count, 4 / 3) / 2)


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_no_more_is_made_than_allowed(budget: int) -> None:
    problem, points = row(30)
    models = Models(problem, 20.0, budget)
    reached = fastest_that_passes(points, models.attempt, goal=0.85)
    assert len(models.made) == budget
    assert reached is None or models.strain(points[reached].assignment) <= 0.85


@given(st.floats(0.5, 30), st.floats(1, 1.5))
@settings(deadline=None)
def test_going_back_only_accepts_what_passes_and_gains(scale: float, factor: float) -> None:
    problem, points = row(12)
    models = Models(problem, scale, factor=factor)
    start = points[-1].assignment
    accepted = back_towards(problem, start, points[0].assignment, models.attempt, goal=0.85, value=lambda p: p.us)
    times = [problem.us(start), *map(problem.us, accepted)]
    assert times == sorted(times, reverse=True)
    assert all(models.strain(assignment) <= 0.85 for assignment in accepted)
    if factor == 1 and accepted:  # nothing else that gains would pass
        last = accepted[-1]
        for node, number in enumerate(last):
            more = (*last[:node], 1, *last[node + 1 :])
            assert number == 1 or models.strain(more) > 0.85
