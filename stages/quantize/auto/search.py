"""Which assignments are made as real models, and in which order: along the frontier, then back towards speed. Pure.

The frontier orders assignments from fast to exact by predicted noise. Strain (the share of a tolerance that is used) is
an amplitude, and noise a power, so that strain is nearly proportional to the square root of noise: the next point to
try is where that predicts the goal, between the last that failed and the first that passed.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from stages.quantize.auto.problem import Picks, Problem
from stages.quantize.auto.solve import Point, point


class Tried(Protocol):
    """What is known of an assignment that was made as a real model."""

    @property
    def strain(self) -> float:
        """The largest share of a tolerance that a rule uses."""
        ...


TRUSTED = 4
"""Trials after which a prediction alone no longer says where to go on."""

Try = Callable[[Picks], Tried | None]
"""Makes and judges an assignment; None where no trial is left."""


def fastest_that_passes(points: Sequence[Point], attempt: Try, goal: float) -> int | None:
    """The first point of a frontier that passes, by as few trials as predictions allow.

    Args:
        points: from fast to exact.
        attempt: makes and judges one.
        goal: the largest strain that passes.

    Returns:
        Its number; None where none passes, or no trial is left before one does.
    """
    failing, passing = -1, len(points)
    at = trials = 0
    while True:
        tried = attempt(points[at].assignment)
        if tried is None:
            break
        if tried.strain <= goal:
            passing = at
        else:
            failing = at
        if passing - failing <= 1:
            break
        trials += 1
        noise = points[at].noise * (goal / tried.strain) ** 2 if 0 < tried.strain < math.inf else 0.0
        at = _next(points[failing + 1 : passing], noise, trusted=trials <= TRUSTED) + failing + 1
    return passing if passing < len(points) else None


def _next(inside: Sequence[Point], noise: float, trusted: bool) -> int:
    """The first point with no more noise than that; where that is not trusted, at least a quarter from either end."""
    last = len(inside) - 1
    wanted = next((number for number, candidate in enumerate(inside) if candidate.noise <= noise), last)
    quarter = 0 if trusted else len(inside) // 4
    return min(max(wanted, quarter), last - quarter)


def back_towards(
    problem: Problem,
    reached: Picks,
    fast: Picks,
    attempt: Try,
    *,
    goal: float,
    value: Callable[[Point], float],
) -> list[Picks]:
    """Move nodes of an assignment that passes back to what a faster one has, as long as it still passes.

    The moves are ranked by what they gain over the noise that they add; half of them are tried at once, then fewer
    after a failure, and more after a success.

    Args:
        problem: that predicts.
        reached: passes.
        fast: the one to go back to.
        attempt: makes and judges one.
        goal: the largest strain that passes.
        value: what is minimised: the predicted time, or the size.

    Returns:
        Assignments that pass, each better than the one before.
    """
    accepted: list[Picks] = []
    refused: set[int] = set()
    share = 0.5
    while True:
        moves = [
            (gain, noise, node)
            for node, (own, other) in enumerate(zip(reached, fast, strict=True))
            if own != other and node not in refused
            for gain, noise in [_effect(problem, reached, node, other, value)]
            if gain > 0
        ]
        if not moves:
            return accepted
        moves.sort(key=lambda move: (move[1] / move[0], move[2]))
        chosen = [node for _, _, node in moves[: max(1, round(len(moves) * share))]]
        candidate = tuple(fast[node] if node in chosen else own for node, own in enumerate(reached))
        tried = attempt(candidate)
        if tried is None:
            return accepted
        if tried.strain <= goal:
            reached = candidate
            accepted.append(candidate)
        elif len(chosen) == 1:
            refused.add(chosen[0])
        else:
            share /= 2


def _effect(
    problem: Problem, assignment: Picks, node: int, option: int, value: Callable[[Point], float]
) -> tuple[float, float]:
    """What a move gains, and the noise that it adds."""
    moved = (*assignment[:node], option, *assignment[node + 1 :])
    before, after = point(problem, assignment), point(problem, moved)
    return value(before) - value(after), max(0.0, after.noise - before.noise)
