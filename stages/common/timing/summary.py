"""The summary of launches at one batch size: the speed-up with its interval, and the times of calls.

Quiet rounds. A virtual machine shares its cores with others that it cannot see. While one of them is busy, every call
takes a third longer or more, for tenths of a second or for many seconds; CPU time does not show it, and the two models
suffer unequally, which changes the speed-up. Rounds are selected by the time of both models together, which favours
neither.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from stages.common.base.files import rounded

Verdict = Literal["faster", "slower", "equivalent", "inconclusive"]

EQUIVALENT = 0.97
"""A speed-up from EQUIVALENT to 1 / EQUIVALENT is too small to notice. `gate.min_speedup` has the same default, so that
"not slower" means the same for the gate."""

CONFIDENCE = 0.95

MIN_LAUNCHES = 8
"""With fewer launches, an interval whose width decides when to stop is too narrow, so only the budget may end them."""

FEWEST_LAUNCHES = 3
"""The fewest launches for an interval. If fewer of them have quiet rounds, all rounds count."""

_QUIETEST = 0.05
_WITHIN = 0.1
"""More than launches differ by memory layout (about 3 %), less than a neighbour costs (25 % and more)."""

_CALLS_BEYOND = 10
"""Calls that must lie beyond a quantile, so that it does not depend on chance."""


@dataclass(frozen=True)
class Interval:
    """A speed-up (fp32 time over INT8 time) and the ends of its 95 % interval."""

    ratio: float
    low: float
    high: float

    @property
    def halfwidth(self) -> float:
        """The upper half-width as a share of the ratio: 0.02 is ± 2 %."""
        return self.high / self.ratio - 1

    def as_in_metrics(self) -> "Interval":
        """The figures rounded as in the metrics: verdict and text use them, so that readers of the metrics agree."""
        ratio, low, high = (rounded(value) or value for value in (self.ratio, self.low, self.high))
        return Interval(ratio, low, high)

    @property
    def verdict(self) -> Verdict:
        shown = self.as_in_metrics()
        if shown.low >= EQUIVALENT and shown.high <= 1 / EQUIVALENT:
            return "equivalent"
        if shown.low > 1:
            return "faster"
        if shown.high < 1:
            return "slower"
        return "inconclusive"

    def covers(self, ratio: float) -> bool:
        return self.low <= ratio <= self.high

    def __str__(self) -> str:
        shown = self.as_in_metrics()
        return f"{shown.ratio:.3f} ({shown.low:.3f} to {shown.high:.3f})"


class Launch(NamedTuple):
    """One process: times of both models' calls in nanoseconds, CPU time over wall time, span in seconds since 1970."""

    rounds: list[tuple[np.ndarray, np.ndarray]]
    cpu_share: float
    span: Sequence[float] = (0.0, 0.0)

    def medians(self) -> np.ndarray:
        """The median time of a call of each model in each round, in nanoseconds, shape [rounds, 2]."""
        return np.array([[np.median(fp32), np.median(int8)] for fp32, int8 in self.rounds])


class CallTimes(NamedTuple):
    """Times of the calls of one model.

    Attributes:
        all_ns: times in all rounds, in nanoseconds, shape [calls].
        counted_ns: times in the rounds that count for the speed-up.
        spread_ms: the smallest and the largest median of a launch.
    """

    all_ns: np.ndarray
    counted_ns: np.ndarray
    spread_ms: tuple[float, float]

    @property
    def p50_ms(self) -> float:
        return float(np.median(self.counted_ns)) / 1e6


@dataclass(frozen=True)
class PairedTiming:
    """Two models at one batch size, with `samples` in one call.

    Attributes:
        interval: the speed-up with its interval.
        medians: per launch, the median time of a call in nanoseconds, shape [rounds, 2].
        counted: per launch, which rounds count, shape [rounds].
        spans: per launch, start and end of its rounds in seconds since 1970 (UTC).
        quiet_share: share of quiet rounds.
        all_rounds: whether all rounds count, because too few launches had quiet ones.
        cpu_share: CPU time over wall time of the timed rounds, of the median launch.
        stopped_by: which of target half-width and budget ended the measurement.
    """

    samples: int
    interval: Interval
    fp32: CallTimes
    int8: CallTimes
    medians: Sequence[np.ndarray]
    counted: Sequence[np.ndarray]
    spans: Sequence[Sequence[float]]
    quiet_share: float
    all_rounds: bool
    cpu_share: float
    stopped_by: Literal["target", "budget"]

    @property
    def launches(self) -> int:
        return len(self.medians)


def summarize(launches: Sequence[Launch], samples: int, target: float) -> PairedTiming:
    """Summarize launches at one batch size.

    Each launch gives one observation, the median log ratio of its quiet rounds; a launch without any gives none. If
    fewer than FEWEST_LAUNCHES are left, all rounds count. The target, a half-width as a share of the speed-up, is only
    met by MIN_LAUNCHES or more launches with quiet rounds.
    """
    medians = [launch.medians() for launch in launches]
    quiet = quiet_rounds(medians)
    quiet_launches = sum(bool(mask.any()) for mask in quiet)
    all_rounds = quiet_launches < FEWEST_LAUNCHES
    counted = [np.ones_like(mask) for mask in quiet] if all_rounds else quiet
    interval = speedup(medians, counted)
    return PairedTiming(
        samples=samples,
        interval=interval,
        fp32=_call_times(launches, counted, 0),
        int8=_call_times(launches, counted, 1),
        medians=medians,
        counted=counted,
        spans=[launch.span for launch in launches],
        quiet_share=float(np.concatenate(quiet).mean()),
        all_rounds=all_rounds,
        cpu_share=float(np.median([launch.cpu_share for launch in launches])),
        stopped_by="target" if quiet_launches >= MIN_LAUNCHES and interval.halfwidth <= target else "budget",
    )


def speedup(medians: Sequence[np.ndarray], counted: Sequence[np.ndarray]) -> Interval:
    """The speed-up from the rounds that count: the median log ratio of each launch, and Student's t over launches.

    Per launch, `medians` holds median call times of fp32 and INT8, [rounds, 2], in the same unit, and `counted` a mask
    [rounds]; at least two launches need rounds that count.
    """
    log_ratios = [np.log(times[mask, 0] / times[mask, 1]) for times, mask in zip(medians, counted, strict=True)]
    return over_launches([float(np.median(ratios)) for ratios in log_ratios if len(ratios)])


def over_launches(log_ratios: Sequence[float]) -> Interval:
    """The 95 % interval of the speed-up, from log(fp32 time / INT8 time) of two or more launches.

    exp(m ± t s / sqrt(P)), with the mean m and the standard deviation s (P - 1 degrees of freedom) of the P log ratios
    and t the 0.975 quantile of Student's t for P - 1 degrees of freedom: the paired t interval on the log scale, after
    Kalibera and Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013), with processes as repetitions.
    """
    from scipy.special import stdtrit

    count = len(log_ratios)
    mean = float(np.mean(log_ratios))
    margin = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2) * np.std(log_ratios, ddof=1) / math.sqrt(count))
    return Interval(math.exp(mean), math.exp(mean - margin), math.exp(mean + margin))


def quiet_rounds(medians: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The rounds in which both models took at most a tenth longer than in the quietest twentieth of all rounds.

    Takes the median call times of each launch, [rounds, 2], in one unit; returns a mask [rounds] for each launch.
    """
    slowness = [np.log(times).mean(axis=1) for times in medians]
    limit = np.quantile(np.concatenate(slowness), _QUIETEST) + math.log1p(_WITHIN)
    return [values <= limit for values in slowness]


def calls_for(share: float) -> int:
    """How many calls a quantile needs: 100 for p90, 200 for p95, 1000 for p99; one for the median and below."""
    return 1 if share <= 0.5 else round(_CALLS_BEYOND / (1 - share))


def quantile_ms(ns: np.ndarray, share: float) -> float | None:
    """The `share` quantile (0 to 1) in milliseconds, of durations in nanoseconds; None if there are too few calls."""
    return float(np.quantile(ns, share)) / 1e6 if len(ns) >= calls_for(share) else None


def _call_times(launches: Sequence[Launch], counted: Sequence[np.ndarray], which: int) -> CallTimes:
    times = [[both[which] for both in launch.rounds] for launch in launches]
    kept = [
        np.concatenate([calls for calls, counts in zip(rounds, mask, strict=True) if counts])
        for rounds, mask in zip(times, counted, strict=True)
        if mask.any()
    ]
    medians = [float(np.median(calls)) / 1e6 for calls in kept]
    everything = np.concatenate([calls for rounds in times for calls in rounds])
    return CallTimes(everything, np.concatenate(kept), (min(medians), max(medians)))
