"""ONNX Runtime's profile of both models, in a fresh process. Started by `profiling`, see `child`."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.bench import child
from stages.bench.feeds import load
from stages.bench.operators import Event, cheapest_kernel_us, milliseconds
from stages.common.model.sessions import open_session, run, session_options

_WARM_CALLS = 3
_CALLS = 500
_SECONDS = 0.4
_TURN_SECONDS = 0.02


class _Profiled:
    """A session whose profiler is on."""

    def __init__(self, path: str, feed: Mapping[str, np.ndarray], threads: int, folder: str) -> None:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        self._session = open_session(Path(path), options=options)
        self._feed = feed
        for _ in range(_WARM_CALLS):
            run(self._session, feed, name=path)
        self._calls = 0
        self._seconds = 0.0

    def done(self) -> bool:
        """Whether it ran long enough, or often enough."""
        return self._calls >= _CALLS or self._seconds >= _SECONDS

    def turn(self) -> None:
        """Run for a while."""
        start = time.monotonic()
        end = start + _TURN_SECONDS
        while self._calls < _CALLS:
            self._session.run(None, self._feed)
            self._calls += 1
            if time.monotonic() >= end:
                break
        self._seconds += time.monotonic() - start

    def end(self) -> tuple[list[Event], int]:
        """The events of the profile, and the number of calls that count."""
        return json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8")), self._calls


def work(job: Any) -> dict[str, dict[str, float]]:
    """Profile both models by turns, so that what slows the machine slows both.

    Args:
        job: `models`, the paths of fp32 and INT8; `threads`; `feed`; `one_node`, `model` and `feed`, whose kernel
            takes little more than the profiler; `folder` for its files.

    Returns:
        Milliseconds of one call by operator type, under `fp32` and `int8`.
    """
    one, feed = job["one_node"], load(job["feed"])
    subjects = [(one["model"], load(one["feed"])), *((path, feed) for path in job["models"])]
    profiled = [_Profiled(path, each, job["threads"], job["folder"]) for path, each in subjects]
    while not all(each.done() for each in profiled):
        for each in profiled:
            if not each.done():
                each.turn()
    profiles = [each.end() for each in profiled]
    overhead_us = min(cheapest_kernel_us(*each) for each in profiles)
    fp32, int8 = (milliseconds(*each, overhead_us) for each in profiles[1:])
    return {"fp32": fp32, "int8": int8}


if __name__ == "__main__":
    child.serve(work)
