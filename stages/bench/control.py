"""A model timed against itself has a speed-up of 1: what is measured shows how far this machine can be trusted.

The control is one such comparison. The self-check makes 20, and their 95 % intervals should cover 1.
"""

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tabulate import tabulate
from tqdm import tqdm

from stages.bench import inputs
from stages.common.base import files
from stages.common.base.params import Params
from stages.common.timing.feed import StoredFeed
from stages.common.timing.launches import LaunchSettings, ModelPair, time_pair
from stages.common.timing.lock import alone
from stages.common.timing.summary import Interval, PairedTiming

CHECKS = 20
MUST_COVER = 18
"""If each of 20 intervals covers the true value with 95 % probability, at least 18 do in 92 of 100 self-checks."""


def measured_once(
    model: Path,
    sha256: str,
    feed: StoredFeed,
    settings: LaunchSettings,
    *,
    machine_id: str,
    fits: Callable[[], bool],
    budget: float,
    launched: Callable[[float], object] = lambda _: None,
) -> Interval | None:
    """The speed-up of `model` over itself: measured once per machine, model, feed and number of threads, then cached.

    An interval that misses 1 or is too wide is not cached, so the next run tries again.

    Args:
        fits: whether there is time to measure it; if not, the result is None, unless it is cached.
        budget: seconds for all launches.
        launched: see `time_pair`.

    Raises:
        StageError: the model does not load or run.
    """
    cached = _cache_file(machine_id, sha256, files.sha256(Path(feed.path)), str(settings.threads))
    known = _read(cached)
    if known is not None or not fits():
        return known
    (timing,) = time_pair(ModelPair(model, model), [feed], settings, budget=budget, target=math.inf, launched=launched)
    if timing.interval.covers(1) and timing.interval.verdict == "equivalent":
        _write(cached, timing.interval)
    return timing.interval


def _cache_file(*key: str) -> Path:
    """Outside the project: DVC removes a stage's outs before it runs, and runs experiments in copies of the project."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home, as in a container
        cache = Path(tempfile.gettempdir())
    return cache / "onnx-quantize-pipeline" / f"control_{hashlib.sha256(' '.join(key).encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Interval | None:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return Interval(float(tree["ratio"]), float(tree["low95"]), float(tree["high95"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, interval: Interval) -> None:
    try:
        files.write_json(path, {"ratio": interval.ratio, "low95": interval.low, "high95": interval.high})
    except OSError:  # the cache is not writable: the next run measures again
        return


def self_check(params: Params) -> int:
    """Compare the fp32 model with itself 20 times, print the intervals, and return 0 if at least 18 cover 1, else 1."""
    subject = inputs.read(params)
    itself = ModelPair(subject.models.fp32, subject.models.fp32)
    timings: list[PairedTiming] = []
    seconds: list[float] = []
    with files.scratch("bench") as folder, alone() as lock:
        feed = subject.feed(subject.batch, params.bench.seed, folder)
        for number in tqdm(range(CHECKS), desc="self-check", disable=None):
            start = time.monotonic()
            settings = LaunchSettings(params.serving.threads, params.bench.seed + number, lock)
            budget, target = params.bench.max_seconds, params.bench.target_halfwidth
            timings += time_pair(itself, [feed], settings, budget=budget, target=target)
            seconds.append(time.monotonic() - start)
    return _print_checks(timings, seconds)


def _print_checks(timings: list[PairedTiming], seconds: list[float]) -> int:
    intervals = [timing.interval for timing in timings]
    rows = [
        (interval.ratio, interval.low, interval.high, f"{interval.halfwidth:.2%}", timing.launches, spent)
        for timing, interval, spent in zip(timings, intervals, seconds, strict=True)
    ]
    headers = ("speed-up", "low95", "high95", "half-width", "launches", "seconds")
    print(tabulate(rows, headers, tablefmt="simple", floatfmt=(".4f", ".4f", ".4f", "", "d", ".1f")))
    covered = sum(interval.covers(1) for interval in intervals)
    holds = covered >= MUST_COVER
    print(
        f"\nThe model against itself: {covered} of {CHECKS} intervals cover 1, and at least {MUST_COVER} must; "
        f"median half-width {median(interval.halfwidth for interval in intervals):.2%}, "
        f"median error {median(abs(interval.ratio - 1) for interval in intervals):.2%}, "
        f"median time {median(seconds):.1f} s."
    )
    print(
        "The intervals hold here." if holds else "Do not trust intervals measured on this machine in its current state."
    )
    return 0 if holds else 1
