"""Correct the predicted noise and time by whole models: a factor for each choice. Pure.

Each choice has its own systematic error: static clips values that it was not calibrated on, kernels are fused with the
operators after them. Excess strain or time is attributed to the choices of a model by their predicted shares.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from stages.quantize.auto.choices import kernel
from stages.quantize.auto.problem import Junction, Option, Picks, Problem

SWEEPS = 20
"""Passes over all models, because each model shifts the factors that the others gave."""

LARGEST = math.log(1e6)
"""The largest logarithm of a factor."""

LEVEL, LEVEL_US = 0.05, 1.0
"""Times are equal if they differ by less than this share and this many microseconds: another run would reorder them."""

REST = "rest"
BORDERS = "borders"


@dataclass(frozen=True)
class Seen:
    """The measured strain and time of a model; None if not measured."""

    strain: float | None
    us: float | None


def corrected(problem: Problem, seen: Mapping[Picks, Seen]) -> Problem:
    """The problem with noise and time corrected by the models that were built."""
    noises = [(_noises(problem, picks), model.strain**2) for picks, model in seen.items() if model.strain is not None]
    times = [(_times(problem, picks), model.us) for picks, model in seen.items() if model.us is not None]
    return levelled(scaled(problem, factors(noises), factors(times)))


def levelled(problem: Problem) -> Problem:
    """The problem with equal times for choices of a node that differ by less than the noise of timing.

    Then errors and sizes decide, which are the same in every run.
    """
    return replace(problem, options=tuple(map(_levelled, problem.options)))


def _levelled(options: tuple[Option, ...]) -> tuple[Option, ...]:
    levels: list[float] = []
    for us in sorted(option.us for option in options):
        if not levels or us > levels[-1] * (1 + LEVEL) + LEVEL_US:
            levels.append(us)
    return tuple(replace(option, us=max(level for level in levels if level <= option.us)) for option in options)


def scaled(problem: Problem, noise: Mapping[str, float], us: Mapping[str, float]) -> Problem:
    """The problem with its predictions for choices, conversions and the rest multiplied by factors, 1 by default."""
    border = us.get(BORDERS, 1.0)
    return replace(
        problem,
        options=tuple(
            tuple(
                replace(
                    option,
                    noise=option.noise * noise.get(option.choice, 1.0),
                    us=option.us * us.get(kernel(option.choice), 1.0),
                )
                for option in options
            )
            for options in problem.options
        ),
        junctions=tuple(_priced(junction, border) for junction in problem.junctions),
        rest_us=problem.rest_us * us.get(REST, 1.0),
    )


def factors(seen: Sequence[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """Factors from predicted to real values, by part.

    Args:
        seen: predicted parts by name, and the real total, for each model.
    """
    learnt: dict[str, float] = {}
    for _ in range(SWEEPS):
        for parts, real in seen:
            amounts = {name: part * learnt.get(name, 1.0) for name, part in parts.items()}
            total = sum(amounts.values())
            if total <= 0:
                continue
            step = math.log(min(max(real, 1e-12), 1e12) / total)
            for name, amount in amounts.items():
                grown = math.log(learnt.get(name, 1.0)) + step * amount / total
                learnt[name] = math.exp(max(-LARGEST, min(LARGEST, grown)))
    return learnt


def _noises(problem: Problem, assignment: Picks) -> dict[str, float]:
    return _summed((option.choice, option.noise) for option in problem.chosen(assignment))


def _times(problem: Problem, assignment: Picks) -> dict[str, float]:
    borders = sum(problem.border_us(number, assignment) for number in range(len(problem.junctions)))
    nodes = ((kernel(option.choice), option.us) for option in problem.chosen(assignment))
    return _summed([*nodes, (REST, problem.rest_us), (BORDERS, borders)])


def _summed(parts: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, part in parts:
        sums[name] = sums.get(name, 0.0) + part
    return sums


def _priced(junction: Junction, factor: float) -> Junction:
    into, back = ({form: us * factor for form, us in prices.items()} for prices in (junction.into, junction.back))
    return replace(junction, into=into, back=back)
