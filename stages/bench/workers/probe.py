"""Memory and load time of one model, alone in its process; started by `footprint`."""

import ctypes
import gc
import sys
import time
from pathlib import Path
from typing import Any

from stages.common.model.sessions import open_session, run
from stages.common.timing import process
from stages.common.timing.feed import load

_RUNS = 10
_FEWEST_RUNS = 2
_RUN_SECONDS = 1.0
_RELOADS = 8
_RELOAD_SECONDS = 0.2
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def work(job: Any) -> dict[str, Any]:
    """Load one model and run it ten times, or less often if that takes long: after two, memory grows no more.

    The identity model runs first, so that the memory of ONNX Runtime and of the feed does not count.

    Args:
        job: `model`, a path; `threads`; `feed`; `identity`, path and feed of the identity model.

    Returns:
        `load_ms`, session creation, the shortest of a few; `first_ms`, the first run; `resident_mb`, memory that the
        model keeps after these runs, trimmed; `peak_load_mb` and `peak_run_mb`, null if the system does not report
        them; `method` of the memory figures.
    """
    feed, threads = load(job["feed"]), job["threads"]
    identity, its_feed = job["identity"]
    run(open_session(Path(identity), threads), load(its_feed), name="the identity model")
    _trim()
    base = _resident_mb()
    _reset_peak()

    path = Path(job["model"])
    start = time.perf_counter()
    session = open_session(path, threads)
    load_seconds = time.perf_counter() - start
    peak_load = _peak_mb()
    _reset_peak()
    first = time.perf_counter()
    run(session, feed, name=job["model"])
    first_end = time.perf_counter()
    runs = 1
    while runs < _FEWEST_RUNS or (runs < _RUNS and time.perf_counter() - first < _RUN_SECONDS):
        session.run(None, feed)
        runs += 1
    peak_run = _peak_mb()
    _trim()
    resident = _resident_mb() - base
    del session
    return {
        "load_ms": min([load_seconds, *_reloads(path, threads, load_seconds)]) * 1e3,
        "first_ms": (first_end - first) * 1e3,
        "resident_mb": resident,
        "peak_load_mb": None if peak_load is None else peak_load - base,
        "peak_run_mb": None if peak_run is None else peak_run - base,
        "method": "VmRSS and VmHWM of /proc" if _STATUS.exists() else "rss of psutil",
    }


def _reloads(path: Path, threads: int, seconds: float) -> list[float]:
    """Seconds of further session creations, each from trimmed memory like the first; none for a slow model."""
    durations = []
    for _ in range(min(_RELOADS, int(_RELOAD_SECONDS / seconds))):
        _trim()
        start = time.perf_counter()
        session = open_session(path, threads)
        durations.append(time.perf_counter() - start)
        del session
    return durations


def _trim() -> None:
    """Return free memory to the system, so that only memory in use is measured; only glibc can do that on demand."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _resident_mb() -> float:
    """Resident memory of this process in MB (1e6 bytes)."""
    if _STATUS.exists():
        return _status_mb("VmRSS")
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def _peak_mb() -> float | None:
    return _status_mb("VmHWM") if _STATUS.exists() else None


def _reset_peak() -> None:
    # Not ru_maxrss, which cannot be reset and is inherited from the parent.
    if _CLEAR_REFS.exists():
        _CLEAR_REFS.write_text("5", encoding="ascii")


def _status_mb(key: str) -> float:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


if __name__ == "__main__":
    process.serve(work)
