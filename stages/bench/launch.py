"""One launch: both models in one fresh process, timed in alternating rounds. Started by `latency`, see `child`."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stages.bench import child
from stages.bench.feeds import load
from stages.common.model.sessions import open_session, run

ROUND_NS = 10_000_000
"""A round lasts this long at least, and MIN_CALLS calls: shorter ones time how the caches fill after the other model,
and make the smaller model look slower than it is when it runs alone."""

MIN_CALLS = 4
MIN_ROUNDS = 4
WARM_NS = 60_000_000
WARM_CALLS = 3

SLOW_NS = 100_000_000
SLOW_WARM_CALLS = 2
"""From SLOW_NS on, two calls warm a model up and half the rounds are enough: caches matter little to such a call."""

Call = Callable[[], object]


def work(job: Any) -> list[dict[str, Any]]:
    """Time both models on each feed in turn.

    Args:
        job: `models`, the paths of the two; `threads`; `feeds`, see `feeds.load`; `seconds`, to spend on each feed;
            `turn`, a number that decides which model is loaded first and which is timed first.

    Returns:
        For each feed: `rounds`, in each of them of both models the time of every call that counts, in nanoseconds;
        `cpu_share`, CPU time of this thread over wall time.
    """
    paths = job["models"]
    sessions = [None, None]
    for which in (0, 1) if job["turn"] // 2 % 2 else (1, 0):
        sessions[which] = open_session(Path(paths[which]), job["threads"])
    return [_compare(sessions, paths, load(feed), job["seconds"], job["turn"]) for feed in job["feeds"]]


def fewest_calls(call_ns: float) -> int:
    """How many calls of both models together a launch makes at least on each feed, if one takes `call_ns`."""
    if call_ns > SLOW_NS:
        return 2 * (SLOW_WARM_CALLS + MIN_ROUNDS // 2 * (MIN_CALLS + 1))
    return 2 * (WARM_CALLS + MIN_ROUNDS * (MIN_CALLS + 1))


def _compare(
    sessions: Sequence[Any], names: Sequence[str], feed: dict[str, Any], seconds: float, turn: int
) -> dict[str, Any]:
    calls = []
    for session, name in zip(sessions, names, strict=True):
        run(session, feed, name=name)  # an error has its sentence here, and costs nothing below
        # What a Python service calls; run_with_ort_values would cost 30 us more.
        calls.append(partial(session.run, [output.name for output in session.get_outputs()], feed))
    steady = [_warm_up(call) for call in calls]
    lengths = [max(MIN_CALLS, math.ceil(ROUND_NS / each)) + 1 for each in steady]
    fewest = MIN_ROUNDS // 2 if max(steady) > SLOW_NS else MIN_ROUNDS

    rounds: list[list[list[int]]] = []
    gc.collect()
    gc.disable()
    wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
    end = wall + int(seconds * 1e9)
    while len(rounds) < fewest or time.perf_counter_ns() < end:
        calls_ns: list[list[int]] = [[], []]
        for which in _order(len(rounds), turn):
            calls_ns[which] = _round(calls[which], lengths[which])
        rounds.append(calls_ns)
    wall, cpu = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
    gc.enable()
    return {"rounds": rounds, "cpu_share": cpu / wall}


def _order(number: int, turn: int) -> tuple[int, int]:
    """AB BA BA AB, or the reverse, by turns: neither model is always the one that finds the caches of the other."""
    return (1, 0) if (number ^ number >> 1 ^ turn) & 1 else (0, 1)


def _warm_up(call: Call) -> float:
    """Call until caches, arenas and clocks have settled; the median time of the later half, in nanoseconds."""
    durations: list[int] = []
    spent = 0
    while spent < WARM_NS or len(durations) < WARM_CALLS:
        durations += _timed(call, 1)
        spent += durations[-1]
        if durations[-1] > SLOW_NS and len(durations) >= SLOW_WARM_CALLS:
            break
    return statistics.median(durations[len(durations) // 2 :])


def _round(call: Call, length: int) -> list[int]:
    """`length` calls without the first, which pays for what the other model left in the caches."""
    return _timed(call, length)[1:]


def _timed(call: Call, count: int) -> list[int]:
    clock = time.perf_counter_ns
    durations = [0] * count
    for number in range(count):
        start = clock()
        call()
        durations[number] = clock() - start
    return durations


if __name__ == "__main__":
    child.serve(work)
