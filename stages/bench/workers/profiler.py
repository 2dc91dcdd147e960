"""Kernel time of both models by operator type, from ONNX Runtime's profiler; started by `operators`."""

import json
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from stages.common.base.errors import StageError
from stages.common.model.sessions import open_session, run, session_options
from stages.common.timing import process
from stages.common.timing.feed import load

_WARM_CALLS = 3
_CALLS = 500
_SECONDS = 0.4
_TURN_SECONDS = 0.02

_KERNEL = "_kernel_time"
_CONTROL_FLOW = ("If", "Loop", "Scan")

Event = Mapping[str, Any]


def work(job: Any) -> dict[str, dict[str, float]]:
    """Profile both models in turns, so that whatever slows the machine slows both.

    Args:
        job: `models`, the paths of fp32 and INT8; `threads`; `feed`; `identity`, path and feed of a model whose kernel
            takes little more than the profiler; `folder` for its files.

    Returns:
        Milliseconds per call by operator type, under `fp32` and `int8`.
    """
    (identity, its_feed), feed = job["identity"], load(job["feed"])
    subjects = [(identity, load(its_feed)), *((path, feed) for path in job["models"])]
    sessions = [
        _ProfiledSession(path, fed, job["threads"], str(Path(job["folder"], f"profile{number}")))
        for number, (path, fed) in enumerate(subjects)
    ]
    while running := [session for session in sessions if not session.done()]:
        for session in running:
            session.take_turn()
    profiles = [session.end() for session in sessions]
    overhead_us = min(cheapest_kernel_us(*profile) for profile in profiles)
    fp32, int8 = (milliseconds(*profile, overhead_us) for profile in profiles[1:])
    return {"fp32": fp32, "int8": int8}


class _ProfiledSession:
    """A session with the profiler on. Its files have a prefix: profiles begun in one millisecond get the same name."""

    def __init__(self, path: str, feed: Mapping[str, np.ndarray], threads: int, prefix: str) -> None:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = prefix
        self._session = open_session(Path(path), options=options)
        self._feed = feed
        start = time.monotonic()
        for _ in range(_WARM_CALLS):
            run(self._session, feed, name=path)
            if time.monotonic() - start > _SECONDS:
                break
        self._calls = 0
        self._seconds = 0.0

    def done(self) -> bool:
        """Whether it ran long or often enough."""
        return self._calls >= _CALLS or self._seconds >= _SECONDS

    def take_turn(self) -> None:
        start = time.monotonic()
        end = start + _TURN_SECONDS
        while self._calls < _CALLS:
            self._session.run(None, self._feed)
            self._calls += 1
            if time.monotonic() >= end:
                break
        self._seconds += time.monotonic() - start

    def end(self) -> tuple[list[Event], int]:
        """The events of the profile, and the number of calls that count.

        Raises:
            StageError: the profile is incomplete: ONNX Runtime says nothing of a full disk.
        """
        profile = Path(self._session.end_profiling())
        try:
            return json.loads(profile.read_text(encoding="utf-8")), self._calls
        except ValueError as error:
            raise StageError(
                f"ONNX Runtime's profile was cut short. Free space in {profile.parent.parent}, or set TMPDIR to "
                "another folder, and run again."
            ) from error


def milliseconds(events: Sequence[Event], calls: int, overhead_us: float) -> dict[str, float]:
    """Kernel time of one call by operator type, in milliseconds.

    A kernel that runs other kernels counts only its own time: the kernels of one thread nest. If, Loop and Scan do not
    count, because their own time is the profiler's work between the kernels that they run. For each node the middle
    half of the calls is averaged: a single interruption could outweigh a hundred calls.

    Args:
        events: of ONNX Runtime's profile, in any order; times in whole microseconds.
        calls: how many calls count: the last ones, after the warm-up.
        overhead_us: what the profiler adds to each kernel.
    """
    starts = _starts(events, calls)
    kernels = _kernels(events, starts)
    spent: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * calls)
    for event, own in zip(kernels, _own_times(kernels), strict=True):
        operator = event["args"]["op_name"]
        if operator not in _CONTROL_FLOW:
            spent[operator, event["name"]][bisect_right(starts, event["ts"]) - 1] += max(0.0, own - overhead_us)
    totals: dict[str, float] = defaultdict(float)
    for (operator, _), durations in spent.items():
        totals[operator] += _middle_mean(durations) / 1e3
    return dict(totals)


def cheapest_kernel_us(events: Sequence[Event], calls: int) -> float:
    """The time of the cheapest node in microseconds: an upper bound on what the profiler adds to each kernel."""
    durations: dict[str, list[float]] = defaultdict(list)
    for event in _kernels(events, _starts(events, calls)):
        durations[event["name"]].append(event["dur"])
    return min(map(_middle_mean, durations.values()), default=0.0)


def _starts(events: Sequence[Event], calls: int) -> list[int]:
    """When the last `calls` calls started."""
    return sorted(event["ts"] for event in events if event["name"] == "model_run")[-calls:]


def _kernels(events: Sequence[Event], starts: Sequence[int]) -> list[Event]:
    """The kernels of these calls by start time, outer before inner."""
    kernels = [event for event in events if event["name"].endswith(_KERNEL) and event["ts"] >= starts[0]]
    return sorted(kernels, key=lambda event: (event["ts"], -event["dur"]))


def _own_times(kernels: Sequence[Event]) -> list[float]:
    """Durations without those of the kernels inside; `kernels` are sorted by start time."""
    own = [float(event["dur"]) for event in kernels]
    running: dict[Any, list[int]] = defaultdict(list)
    for number, event in enumerate(kernels):
        stack = running[event["tid"]]
        while stack and event["ts"] >= kernels[stack[-1]]["ts"] + kernels[stack[-1]]["dur"]:
            stack.pop()
        if stack:
            own[stack[-1]] -= event["dur"]
        stack.append(number)
    return own


def _middle_mean(values: Sequence[float]) -> float:
    ordered = sorted(values)
    cut = len(ordered) // 4
    return mean(ordered[cut : len(ordered) - cut])


if __name__ == "__main__":
    process.serve(work)
