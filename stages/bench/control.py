"""The control: a model against itself, whose speed-up is 1, shows how far to trust figures of this machine."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from stages.common.base import files
from stages.common.timing.feed import StoredFeed
from stages.common.timing.launches import LaunchSettings, ModelPair, time_pair
from stages.common.timing.summary import Interval


def measured_once(
    model: Path,
    sha256: str,
    feed: StoredFeed,
    settings: LaunchSettings,
    *,
    machine_id: str,
    launched: Callable[[], object] = lambda: None,
) -> Interval:
    """The speed-up of `model` over itself: measured once per machine, model, feed and number of threads, then cached.

    An interval that misses 1 or is too wide is not cached, so the next run tries again. `launched` is called after each
    launch.

    Raises:
        StageError: the model does not load or run.
    """
    cached = _cache_file(machine_id, sha256, files.sha256(Path(feed.path)), str(settings.threads))
    known = _read(cached)
    if known is not None:
        return known
    (timing,) = time_pair(ModelPair(model, model), [feed], settings, budget=0, target=0, launched=launched)
    if timing.interval.covers(1) and timing.interval.verdict == "equivalent":
        _write(cached, timing.interval)
    return timing.interval


def _cache_file(*key: str) -> Path:
    """Outside the project: DVC removes a stage's outs before it runs, and runs experiments in copies of the project."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
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
