"""The race: the best models that pass, timed in turn with the float one, and which of them is published."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from stages.quantize.auto.judge import Candidate, Judge
from stages.quantize.auto.problem import Point
from stages.quantize.auto.timing import SESSIONS, Call, Ratio, raced

RACERS = 5
"""Models that are timed beside the float one at the end."""

RACE_SECONDS = 1.0
"""Timed of each of them."""

LARGE_BYTES = 256 << 20
"""Weights above which a model races in one session, for the memory of more."""

ROUNDS = 20
"""Of calls that are to be timed: slow models race in fewer sessions for that."""

NOISE = 0.02
"""Speed-ups that differ by less are equal, as those of two sessions of one file are; the smaller model wins then."""

ALIKE = 0.005
"""Sizes that differ by less are equal; the more exact model wins then."""


@dataclass(frozen=True)
class Trial:
    """A candidate, where it came from, what was predicted of it, and what it was timed to take.

    Attributes:
        us: by a short look, in microseconds; None for a model that does not run.
        speedup: over the float model, of those that raced.
    """

    origin: str
    candidate: Candidate
    predicted: Point
    us: float | None = None
    speedup: Ratio | None = None

    @property
    def strain(self) -> float:
        """The largest share of a tolerance that a rule uses."""
        return self.candidate.strain

    @property
    def measured(self) -> Point:
        """Its time, noise and size as they were measured; infinitely slow where it does not run."""
        us = math.inf if self.us is None else self.us
        return Point(self.candidate.assignment, us, self.strain**2, self.candidate.size)


def race(trials: Sequence[Trial], judge: Judge, float_us: float) -> list[Trial]:
    """The trials with their speed-ups over the float model, which takes `float_us` a call, all timed in turn."""
    if not trials:
        return []
    models = [trial.candidate.model for trial in trials if trial.candidate.model is not None]
    seconds = RACE_SECONDS * (1 + len(models))
    ratios = side_by_side(models, judge, seconds, float_us + sum(trial.us or 0.0 for trial in trials))
    return [replace(trial, speedup=speedup) for trial, speedup in zip(trials, ratios, strict=True)]


def side_by_side(models: Sequence[ir.Model], judge: Judge, seconds: float, us: float) -> list[Ratio]:
    """Speed-ups over the float model, all timed in turn, in as many sessions as these seconds allow.

    Args:
        models: to time.
        judge: opens them.
        seconds: for all together.
        us: of a call of each, the float model's too, all together.
    """
    calls: list[Callable[[], Call]] = [judge.float_call, *(partial(judge.call, model) for model in models)]
    rounds = seconds / (2e-6 * us)  # the first call of each is not timed
    sessions = 1 if judge.float_bytes > LARGE_BYTES else int(rounds / ROUNDS)
    return raced(calls, seconds, min(max(1, sessions), SESSIONS))


def winner(raced: Sequence[Trial], objective: str) -> Trial:
    """The fastest, or the smallest; of equal ones the best by the other, and of those the most exact.

    Under `latency` one that is slower than the float model wins only where all are, however small it is.
    """
    if objective == "latency":
        raced = [trial for trial in raced if not slower(trial)] or raced

    def speed(trial: Trial) -> float:
        return trial.speedup.ratio if trial.speedup else 0.0

    def smallest(trials: Sequence[Trial]) -> list[Trial]:
        least = min(trial.candidate.size for trial in trials)
        return [trial for trial in trials if trial.candidate.size <= least * (1 + ALIKE)]

    def fastest(trials: Sequence[Trial]) -> list[Trial]:
        most = max(map(speed, trials))
        return [trial for trial in trials if speed(trial) >= most * (1 - NOISE)]

    equal = fastest(smallest(raced)) if objective == "size" else smallest(fastest(raced))
    return min(equal, key=lambda trial: trial.strain)


def slower(best: Trial) -> str:
    """Why the best of them is slower than the float model; empty if it is not."""
    if best.speedup is None or best.speedup.high >= 1:
        return ""
    return (
        f"the best model that passes runs at {best.speedup.ratio:.3f} of the speed of float "
        f"({best.speedup.low:.3f} to {best.speedup.high:.3f})"
    )
