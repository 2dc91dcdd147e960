"""The best assignment whose noise stays below a limit. Pure.

Noise has a price, as time and size have; a bisection finds the one that just meets the limit. What is left of the
limit is used up by the moves that gain most, and by pairs of moves where one node makes room for another.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from stages.quantize.auto.problem import Point, Prices, Problem, point
from stages.quantize.auto.solve import EXHAUSTIVE, Group, best, blocks

Moves = Sequence[tuple[int, int]]
"""(place in the group, index of the option) for each node that changes."""

STEPS = 16
"""How many prices of noise to try."""


def cheapest(problem: Problem, prices: Prices, limit: float) -> Point:
    """The assignment with the least weighted sum of time and size among those within the limit.

    Args:
        problem: the problem to solve.
        prices: the prices of time and size.
        limit: the limit of the noise.

    Returns:
        The best assignment; all float if none is within the limit.
    """
    if math.prod(map(len, problem.options)) <= EXHAUSTIVE:
        everything = (point(problem, candidate) for candidate in product(*(range(len(o)) for o in problem.options)))
        within = (candidate for candidate in everything if candidate.noise <= limit)
        return min(within, key=prices.value, default=point(problem, problem.all_float))
    fastest = best(problem, prices)
    if problem.noise(fastest) <= limit:
        return point(problem, fastest)
    exact, low, high = problem.all_float, 0.0, math.inf
    price = prices.value(point(problem, exact)) / max(limit, 1e-12)
    near = fastest
    for _ in range(STEPS):
        near = best(problem, replace(prices, noise=price), near=near)
        if problem.noise(near) <= limit:
            exact, high = near, price
        else:
            low = price
        price = price * 8 if math.isinf(high) else price / 8 if not low else math.sqrt(low * high)
    group = Group(problem, range(len(problem.names)), prices)
    return point(problem, tuple(_filled(group, list(exact), limit)))


def _filled(group: Group, numbers: list[int], limit: float) -> list[int]:
    """Make the moves, and pairs of moves, that gain most within the limit, until none is left."""
    options = [group.problem.options[node] for node in group.nodes]
    everything = list(blocks(group))

    def noise(moves: Moves) -> float:
        return sum(options[place][to].noise - options[place][numbers[place]].noise for place, to in dict(moves).items())

    spare = limit - sum(node[number].noise for node, number in zip(options, numbers, strict=True))
    while True:
        moves = [useful for move in everything if (useful := [m for m in move if numbers[m[0]] != m[1]])]
        costs = np.array([group.change(numbers, move) for move in moves])
        chosen = _best_move(costs, np.array([noise(move) for move in moves]), spare)
        together = [move for number in chosen for move in moves[number]]
        if not together or group.change(numbers, together) > -1e-12:
            return numbers
        spare -= noise(together)
        for place, to in together:
            numbers[place] = to


def _best_move(costs: np.ndarray, noises: np.ndarray, spare: float) -> list[int]:
    """The index of the move, or of the two moves, that gain most; empty if none gains.

    Two moves at the same junction may gain less together than this expects.
    """
    least = -1e-9 * max(1.0, float(np.abs(costs).max(initial=0.0)))
    fits = np.flatnonzero((noises <= spare) & (costs < least))
    if len(fits):
        return [int(fits[np.argmin(costs[fits])])]
    gains, pays = np.flatnonzero(costs < least), np.flatnonzero(noises < 0)
    both = costs[gains][:, None] + costs[pays][None]
    both[noises[gains][:, None] + noises[pays][None] > spare] = np.inf
    if not both.size or both.min() >= least:
        return []
    gain, pay = np.unravel_index(np.argmin(both), both.shape)
    return [int(gains[gain]), int(pays[pay])]
