"""Time many sessions in turn in one process, so that whatever disturbs the machine affects all of them.

These times steer the search; bench measures the speed of the result in fresh processes.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from stages.common.model.sessions import Feed

BURST_NS = 300_000
"""Least time that one session is called in a row; its first call, with cold caches, does not count."""

FEWEST_ROUNDS = 5

SESSIONS = 3
"""Sessions per model in a race."""

LARGE_BYTES = 256 << 20
"""A model with more bytes of weights is opened only once, to save memory."""

QUIET = 0.05
"""The quantile of the bursts that represents a quiet machine: disturbances only add time."""


@dataclass(frozen=True)
class Ratio:
    """Time of a reference session over that of another one, with the ends of a 95 % interval."""

    ratio: float
    low: float
    high: float


Call = Callable[[], object]


def call(session: ort.InferenceSession, feed: Feed) -> Call:
    """A function that runs a session once."""
    fed = dict(feed)
    return lambda: session.run(None, fed)


def in_turn(calls: Sequence[Call], seconds: float, seed: int = 0) -> np.ndarray:
    """Time calls in bursts, in turn, in a new random order each round.

    Args:
        calls: the calls to time.
        seconds: total time; each call gets at least `FEWEST_ROUNDS` bursts.
        seed: seed of the order.

    Returns:
        Microseconds of one call, float64 [rounds, calls].
    """
    lengths = [_burst(call) for call in calls]
    order = np.random.default_rng(seed)
    end = time.monotonic() + seconds
    rounds: list[np.ndarray] = []
    while len(rounds) < FEWEST_ROUNDS or time.monotonic() < end:
        times = np.empty(len(calls))
        for number in order.permutation(len(calls)):
            timed = calls[number]
            timed()
            started = time.perf_counter_ns()
            for _ in range(lengths[number]):
                timed()
            times[number] = (time.perf_counter_ns() - started) / lengths[number] / 1e3
        rounds.append(times)
    return np.array(rounds)


def raced(open_calls: Sequence[Callable[[], Call]], seconds: float, sessions: int = SESSIONS) -> np.ndarray:
    """Time models in turn, each in several sessions.

    Args:
        open_calls: functions that open a new session, by model.
        seconds: total time.
        sessions: sessions per model.

    Returns:
        Microseconds of one call, float64 [rounds, sessions, models].
    """
    calls = [open_call() for _ in range(sessions) for open_call in open_calls]
    return in_turn(calls, seconds).reshape(-1, sessions, len(open_calls))


def faster(rounds: np.ndarray, model: int) -> Ratio:
    """How much faster a model is than the first one in a race.

    Two sessions of one file differ by a percent or two because of their memory layout, so the interval covers the
    intervals of all pairs of sessions.

    Args:
        rounds: the times that `raced` returns, float64 [rounds, sessions, models].
        model: index of the model.
    """
    pairs = [ratio(rounds[:, at, 0], rounds[:, at, model]) for at in range(rounds.shape[1])]
    return Ratio(
        float(np.median([pair.ratio for pair in pairs])),
        min(pair.low for pair in pairs),
        max(pair.high for pair in pairs),
    )


def one_by_one(calls: Sequence[Call], seconds: float) -> np.ndarray:
    """Time single calls in a fixed order, once per round, so that each finds the caches as the others leave them.

    Args:
        calls: the calls to time, in the order in which a model would run them.
        seconds: total time; each call is timed at least `FEWEST_ROUNDS` times.

    Returns:
        Microseconds of one call, float64 [rounds, calls].
    """
    for timed in calls:
        timed()
    end = time.monotonic() + seconds
    rounds: list[list[int]] = []
    while len(rounds) < FEWEST_ROUNDS or time.monotonic() < end:
        times = []
        for timed in calls:
            started = time.perf_counter_ns()
            timed()
            times.append(time.perf_counter_ns() - started)
        rounds.append(times)
    return np.array(rounds) / 1e3


def _burst(timed: Call) -> int:
    timed()
    started = time.perf_counter_ns()
    timed()
    once = max(1, time.perf_counter_ns() - started)
    return max(1, math.ceil(BURST_NS / once))


def quiet_us(rounds: np.ndarray) -> np.ndarray:
    """Microseconds of a call on a quiet machine: float64 [calls], from [rounds, calls]."""
    return np.asarray(np.quantile(rounds, QUIET, axis=0))


def ratio(reference: np.ndarray, other: np.ndarray) -> Ratio:
    """How much faster `other` is than `reference`, from the times of both in each round, float64 [rounds].

    The median of the ratios by round, and the order statistics that enclose it with 95 % confidence (the interval of
    the sign test: n / 2 -+ 0.98 sqrt(n), rounded outwards).
    """
    ratios = np.sort(reference / other)
    count = len(ratios)
    reach = 0.98 * math.sqrt(count)
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach))
    return Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]))
