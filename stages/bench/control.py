"""The control: a model against itself, whose speed-up is 1. It shows what the figures of this machine are worth."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from stages.bench.feeds import StoredFeed
from stages.bench.interval import Interval
from stages.bench.latency import Settings, compare
from stages.common.base import files


def once(
    model: Path, feed: StoredFeed, settings: Settings, machine_id: str, launched: Callable[[], object]
) -> Interval:
    """The speed-up of `model` over itself: measured once on each machine and number of threads, then remembered.

    An interval that misses 1, or is too wide to tell, is not remembered: the next run tries again.

    Raises:
        StageError: the model does not load or run.
    """
    memory = _memory(machine_id, settings.threads)
    known = _recall(memory)
    if known is not None:
        return known
    (found,) = compare((model, model), [feed], settings, budget=0, target=0, launched=launched)
    if found.interval.covers(1) and found.interval.verdict == "equivalent":
        _remember(memory, found.interval)
    return found.interval


def _memory(machine_id: str, threads: int) -> Path:
    """Outside the project: DVC removes a stage's outs before it runs, and experiments run in copies of the project."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "onnx-quantize-pipeline" / f"control_{quote(machine_id, safe='')}_{threads}.json"


def _recall(memory: Path) -> Interval | None:
    try:
        tree = json.loads(memory.read_text(encoding="utf-8"))
        return Interval(float(tree["ratio"]), float(tree["low95"]), float(tree["high95"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(memory: Path, found: Interval) -> None:
    try:
        files.write_json(memory, {"ratio": found.ratio, "low95": found.low, "high95": found.high})
    except OSError:  # a home that cannot be written: it is measured again next time
        return
