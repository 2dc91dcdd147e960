"""What whole models teach about the noise of single nodes: a factor for each choice. Pure.

Each choice is mispredicted in a way of its own: static meets values that it was not calibrated on, rows are as good in
a batch as they are alone. What a model strains more than predicted is laid to its choices by their shares of the noise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from stages.quantize.auto.problem import Picks, Problem

SWEEPS = 20
"""Over all models: each of them shifts what the others taught."""

LARGEST = 1e6
"""Of a factor, and of its inverse."""


def factors(problem: Problem, seen: Sequence[tuple[Picks, float]]) -> dict[str, float]:
    """By choice, how many times its predicted noise it really makes.

    Args:
        problem: that predicts.
        seen: assignments that were made, and their strain.
    """
    learnt: dict[str, float] = {}
    for _ in range(SWEEPS):
        for assignment, strain in seen:
            parts: dict[str, float] = {}
            for option in problem.chosen(assignment):
                noise = option.noise * learnt.get(option.choice, 1.0)
                parts[option.choice] = parts.get(option.choice, 0.0) + noise
            total, real = sum(parts.values()), min(max(strain**2, 1e-12), 1e12)
            if not total:
                continue
            for choice, noise in parts.items():
                factor = learnt.get(choice, 1.0) * (real / total) ** (noise / total)
                learnt[choice] = math.exp(max(-_LIMIT, min(_LIMIT, math.log(factor))))
    return learnt


_LIMIT = math.log(LARGEST)


def corrected(problem: Problem, learnt: Mapping[str, float]) -> Problem:
    """The problem with its noises multiplied by the factors of their choices."""
    options = tuple(
        tuple(replace(option, noise=option.noise * learnt.get(option.choice, 1.0)) for option in node)
        for node in problem.options
    )
    return replace(problem, options=options)
