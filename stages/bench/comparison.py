"""What launches found together: the speed-up with its interval, and how long calls took."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from stages.bench.interval import Interval, over_launches
from stages.bench.quiet import quiet_rounds

MIN_LAUNCHES = 8
"""Fewer make the interval too narrow once measuring stops by its width."""

FEWEST_QUIET = 3
"""Launches with quiet rounds: with fewer, what the budget allowed is summed up from all rounds instead."""


class Launch(NamedTuple):
    """What one process found: in each round the times of calls of both models in nanoseconds; its share of a CPU."""

    rounds: list[tuple[np.ndarray, np.ndarray]]
    cpu_share: float

    def medians(self) -> np.ndarray:
        """The median time of a call of each model in each round, shape [rounds, 2]."""
        return np.array([[np.median(fp32), np.median(int8)] for fp32, int8 in self.rounds])


class Times(NamedTuple):
    """Times of single calls in nanoseconds, shape [calls]: in all rounds, and in those that count for the speed-up."""

    all_ns: np.ndarray
    counted_ns: np.ndarray

    @property
    def p50_ms(self) -> float:
        """The median time of a call that counts."""
        return float(np.median(self.counted_ns)) / 1e6


@dataclass(frozen=True)
class Comparison:
    """Two models at one batch size.

    Attributes:
        interval: of the speed-up.
        fp32: times of the fp32 model.
        int8: times of the INT8 model.
        quiet_share: of the rounds, this share was quiet.
        all_rounds: whether all rounds count, as too few launches had quiet ones.
        cpu_share: CPU time over wall time of the timed rounds, the median launch.
        launches: how many.
        samples: in one call.
        stopped_by: what ended it, the target half-width or the budget.
    """

    interval: Interval
    fp32: Times
    int8: Times
    quiet_share: float
    all_rounds: bool
    cpu_share: float
    launches: int
    samples: int
    stopped_by: Literal["target", "budget"]

    def of_one_model(self) -> "Comparison":
        """The same where both files hold one model: the speed-up is 1, and every call is a call of both."""
        times = Times(*(np.concatenate(both) for both in zip(self.fp32, self.int8, strict=True)))
        return replace(self, interval=Interval(1.0, 1.0, 1.0), fp32=times, int8=times, stopped_by="target")


def summed_up(launches: Sequence[Launch], samples: int, target: float) -> Comparison:
    """What some launches at one batch size found together.

    Each launch gives one observation, the median log ratio of its quiet rounds. A launch without any gives none; where
    fewer than FEWEST_QUIET would be left, all rounds count. The target takes MIN_LAUNCHES quiet ones.

    Args:
        launches: two or more.
        samples: in one call.
        target: half-width as a share of the speed-up.
    """
    medians = [launch.medians() for launch in launches]
    quiet = quiet_rounds(medians)
    quiet_launches = sum(bool(mask.any()) for mask in quiet)
    all_rounds = quiet_launches < FEWEST_QUIET
    counted = [np.ones_like(mask) for mask in quiet] if all_rounds else quiet
    log_ratios = [np.log(each[:, 0] / each[:, 1])[mask] for each, mask in zip(medians, counted, strict=True)]
    interval = over_launches([float(np.median(each)) for each in log_ratios if len(each)])
    return Comparison(
        interval=interval,
        fp32=_times(launches, counted, 0),
        int8=_times(launches, counted, 1),
        quiet_share=float(np.concatenate(quiet).mean()),
        all_rounds=all_rounds,
        cpu_share=float(np.median([launch.cpu_share for launch in launches])),
        launches=len(launches),
        samples=samples,
        stopped_by="target" if quiet_launches >= MIN_LAUNCHES and interval.halfwidth <= target else "budget",
    )


def _times(launches: Sequence[Launch], counted: Sequence[np.ndarray], which: int) -> Times:
    rounds = [each[which] for launch in launches for each in launch.rounds]
    kept = [each for each, counts in zip(rounds, np.concatenate(counted), strict=True) if counts]
    return Times(np.concatenate(rounds), np.concatenate(kept))
