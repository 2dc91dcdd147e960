"""ONNX Runtime's profile of both models, in a fresh process. Started by `measure`, see `child`."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.bench import child
from stages.bench.feeds import load
from stages.bench.operators import milliseconds
from stages.common.sessions import open_session, run, session_options

_WARM_CALLS = 3
_CALLS = 500
_SECONDS = 0.3


def work(job: Any) -> dict[str, dict[str, float]]:
    """Profile each model.

    Args:
        job: `models`, the paths of fp32 and INT8; `threads`; `feed`; `one_node`, `model` and `feed` on which the
            profiler's own time is measured; `folder` for its files.

    Returns:
        Milliseconds of one call by operator type, under `fp32` and `int8`.
    """
    threads, folder = job["threads"], job["folder"]
    one = job["one_node"]
    (overhead_ms,) = _profile(one["model"], load(one["feed"]), threads, folder, 0.0).values()
    feed = load(job["feed"])
    return {
        which: _profile(path, feed, threads, folder, overhead_ms * 1e3)
        for which, path in zip(("fp32", "int8"), job["models"], strict=True)
    }


def _profile(model: str, feed: Mapping[str, Any], threads: int, folder: str, overhead_us: float) -> dict[str, float]:
    options = session_options(threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(folder) / "profile")
    session = open_session(Path(model), options=options)
    for _ in range(_WARM_CALLS):
        run(session, feed, name=model)
    calls, end = 0, time.monotonic() + _SECONDS
    while calls < 1 or (calls < _CALLS and time.monotonic() < end):
        session.run(None, feed)
        calls += 1
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return milliseconds(events, calls, overhead_us)


if __name__ == "__main__":
    child.serve(work)
