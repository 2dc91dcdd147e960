"""One launch: both models in one process, timed in alternating rounds. `launches` starts it."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from stages.common.model.sessions import open_session, run
from stages.common.timing import process
from stages.common.timing.feed import load

ROUND_NS = 10_000_000
"""A round lasts at least this long, and MIN_CALLS calls. Shorter rounds would time how the caches recover from the
other model, and make the smaller model look slower than it is alone."""

MIN_CALLS = 4
MIN_ROUNDS = 2
WARM_NS = 60_000_000
WARM_CALLS = 3
LONG_WARM_NS = 300_000_000
"""A model is warm after WARM_NS and WARM_CALLS, or after this long."""

SLOW_NS = 100_000_000
"""Caches matter little to a call that takes longer than this: it is a round of its own, and one round is enough."""

Call = Callable[[], object]


def work(job: Any) -> list[dict[str, Any]]:
    """Time both models on each feed in turn.

    Args:
        job: `models`, both paths; `threads`; `feeds`, see `feed.load`; `seconds` for each feed; `turn`, a number that
            decides which model is loaded first and which is timed first.

    Returns:
        For each feed: `rounds`, per round the times of both models' calls in nanoseconds, without the first call of a
        model that is not slow; `cpu_share`, CPU time of this thread over wall time; `span`, start and end of the rounds
        in seconds since 1970 (UTC).
    """
    paths = job["models"]
    order = (0, 1) if job["turn"] // 2 % 2 else (1, 0)
    opened = {which: open_session(Path(paths[which]), job["threads"]) for which in order}
    sessions = [opened[0], opened[1]]
    return [_time_pair(sessions, paths, load(feed), job["seconds"], job["turn"]) for feed in job["feeds"]]


def fewest_calls(call_ns: float) -> int:
    """The fewest calls that a launch makes, on each feed, of a model that takes `call_ns` per call."""
    warm = min(WARM_CALLS, math.ceil(LONG_WARM_NS / call_ns))
    return warm + (1 if call_ns > SLOW_NS else MIN_ROUNDS * (MIN_CALLS + 1))


def _time_pair(
    sessions: Sequence[ort.InferenceSession],
    names: Sequence[str],
    feed: Mapping[str, np.ndarray],
    seconds: float,
    turn: int,
) -> dict[str, Any]:
    """Time both models on one feed; returns what `work` returns for it."""
    calls, steady = [], []
    for session, name in zip(sessions, names, strict=True):
        # What a Python service calls; run_with_ort_values would cost 30 us more.
        call = partial(session.run, [output.name for output in session.get_outputs()], feed)
        # The first call reports an error in a sentence.
        steady.append(_warm_up(partial(run, session, feed, name=name), call))
        calls.append(call)
    # The first call of a round pays for the caches that the other model filled.
    dropped = [int(call_ns <= SLOW_NS) for call_ns in steady]
    lengths = [max(MIN_CALLS, math.ceil(ROUND_NS / ns)) if ns <= SLOW_NS else 1 for ns in steady]
    fewest = 1 if max(steady) > SLOW_NS else MIN_ROUNDS

    rounds: list[list[list[int]]] = []
    gc.collect()
    gc.disable()
    begin = time.time()
    wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
    end = wall + int(seconds * 1e9)
    while len(rounds) < fewest or time.perf_counter_ns() < end:
        calls_ns: list[list[int]] = [[], []]
        for which in _order(len(rounds), turn):
            calls_ns[which] = _timed(calls[which], dropped[which] + lengths[which])[dropped[which] :]
        rounds.append(calls_ns)
    wall, cpu = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
    gc.enable()
    return {"rounds": rounds, "cpu_share": cpu / wall, "span": (begin, begin + wall / 1e9)}


def _order(number: int, turn: int) -> tuple[int, int]:
    """AB BA BA AB, or the reverse: neither model always runs right after the other."""
    return (1, 0) if (number ^ number >> 1 ^ turn) & 1 else (0, 1)


def _warm_up(first: Call, call: Call) -> float:
    """Call until caches, arenas and clocks settle; returns the median time of the later half, in nanoseconds."""
    durations = _timed(first, 1)
    while (spent := sum(durations)) < LONG_WARM_NS and (spent < WARM_NS or len(durations) < WARM_CALLS):
        durations += _timed(call, 1)
    return statistics.median(durations[len(durations) // 2 :])


def _timed(call: Call, count: int) -> list[int]:
    clock = time.perf_counter_ns
    durations = [0] * count
    for number in range(count):
        start = clock()
        call()
        durations[number] = clock() - start
    return durations


if __name__ == "__main__":
    process.serve(work)
