"""The race: time the best models that pass in turn with the float model, and pick the winner."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from stages.quantize.auto.choices import kernel
from stages.quantize.auto.judge import Candidate, Judge
from stages.quantize.auto.problem import Point
from stages.quantize.auto.timing import LARGE_BYTES, SESSIONS, Call, Ratio, faster, raced

RACERS = 5
"""Most models to time against the float model at the end."""

RACE_SECONDS = 1.0
"""Seconds per model."""

ROUNDS = 20
"""Rounds to aim for; slow models race in fewer sessions, so that as many rounds fit."""

EQUAL = 0.02
"""Models whose times differ by less are equal, as two sessions of one file differ as much; the smaller one wins."""

EQUAL_SIZE = 0.005
"""Sizes that differ by less are equal; then the more exact model wins."""


@dataclass(frozen=True)
class Trial:
    """A candidate with its predicted and measured time.

    Attributes:
        origin: which step of the search proposed it.
        candidate: the model, judged.
        predicted: its predicted time, noise and size.
        us: time of a call in microseconds, from a short measurement or from the race; None if it does not run.
        speedup: speed-up over the float model in the race; None if it did not race.
    """

    origin: str
    candidate: Candidate
    predicted: Point
    us: float | None = None
    speedup: Ratio | None = None

    @property
    def kernels(self) -> tuple[str, ...]:
        """What each node runs; models with the same kernels are equally fast."""
        return tuple(map(kernel, self.candidate.choices.values()))

    @property
    def strain(self) -> float:
        """The largest share of a tolerance that a rule uses."""
        return self.candidate.strain

    @property
    def measured(self) -> Point:
        """Its measured time, noise and size; infinitely slow if it does not run."""
        us = math.inf if self.us is None else self.us
        return Point(self.candidate.assignment, us, self.strain**2, self.candidate.size)


def racers(trials: Sequence[Trial], value: Callable[[Point], float]) -> list[Trial]:
    """The trials to race: of those with the same kernels only the smallest, then the most exact; the best first.

    Args:
        trials: the trials that pass.
        value: the objective to minimize.
    """
    alike: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        alike.setdefault(trial.kernels, []).append(trial)
    ranked: list[tuple[float, Trial]] = []
    for equal in alike.values():
        us = min(trial.measured.us for trial in equal)  # disturbances only add time
        smallest = min(equal, key=lambda trial: (trial.candidate.size, trial.strain))
        ranked.append((value(replace(smallest.measured, us=us)), smallest))
    return [trial for _, trial in sorted(ranked, key=lambda pair: pair[0])[:RACERS]]


def race(trials: Sequence[Trial], judge: Judge, float_us: float) -> list[Trial]:
    """The trials with the results of the race, all timed in turn; `float_us` is the time of the float model."""
    if not trials:
        return []
    models = [trial.candidate.model for trial in trials if trial.candidate.model is not None]
    seconds = RACE_SECONDS * (1 + len(models))
    rounds = side_by_side(models, judge, seconds, float_us + sum(trial.us or 0.0 for trial in trials))
    speedups = [faster(rounds, number) for number in range(1, 1 + len(models))]
    return [
        replace(trial, us=float_us / speedup.ratio, speedup=speedup)
        for trial, speedup in zip(trials, speedups, strict=True)
    ]


def side_by_side(models: Sequence[ir.Model], judge: Judge, seconds: float, us: float) -> np.ndarray:
    """Time models in turn with the float model, which comes first, in as many sessions as the time allows.

    Args:
        models: the models to time.
        judge: opens their sessions.
        seconds: total time.
        us: expected microseconds of one call of every model and the float model together.

    Returns:
        Microseconds of one call, float64 [rounds, sessions, 1 + models].
    """
    calls: list[Callable[[], Call]] = [judge.float_call, *(partial(judge.call, model) for model in models)]
    rounds = seconds / (2e-6 * us)  # the first call of each is not timed
    sessions = 1 if judge.float_bytes > LARGE_BYTES else int(rounds / ROUNDS)
    return raced(calls, seconds, min(max(1, sessions), SESSIONS))


def winner(raced: Sequence[Trial], objective: str, value: Callable[[Point], float]) -> Trial:
    """The best model; size, or speed under `size`, breaks ties, then exactness.

    Under `latency` a model that is slower than the float model only wins if all are.

    Args:
        raced: the trials with the results of the race.
        objective: `latency` or `size`.
        value: the objective to minimize; under `latency` it also counts the size a little.
    """

    def least(trials: Sequence[Trial], cost: Callable[[Trial], float], equal: float) -> list[Trial]:
        best = min(map(cost, trials))
        return [trial for trial in trials if cost(trial) <= best * (1 + equal)]

    def size(trial: Trial) -> float:
        return trial.candidate.size

    if objective == "size":
        equal = least(least(raced, size, EQUAL_SIZE), lambda trial: trial.measured.us, EQUAL)
    else:
        raced = [trial for trial in raced if not slower(trial)] or raced
        equal = least(least(raced, lambda trial: value(trial.measured), EQUAL), size, EQUAL_SIZE)
    return min(equal, key=lambda trial: trial.strain)


def slower(best: Trial) -> str:
    """A clause on how much slower than the float model the best trial is; empty if it is not slower."""
    if best.speedup is None or best.speedup.high >= 1:
        return ""
    return (
        f"the best model that passes runs at {best.speedup.ratio:.3f} times the speed of float "
        f"({best.speedup.low:.3f} to {best.speedup.high:.3f})"
    )
