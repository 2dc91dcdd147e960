"""The speed-up of one model over another: launches until the interval is narrow, or the budget is spent."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.bench import child
from stages.bench.comparison import MIN_LAUNCHES, Comparison, Launch, summed_up
from stages.bench.feeds import StoredFeed

SECONDS = 0.4
"""Timed in one launch: about where more seconds and more launches narrow the interval by as much."""

Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Settings:
    """How to launch: intra-op `threads`, the `seed` of every order, and the descriptor of the `lock`."""

    threads: int
    seed: int
    lock: int


def compare(
    models: Pair,
    feeds: Sequence[StoredFeed],
    settings: Settings,
    *,
    budget: float,
    target: float,
    seconds: float = SECONDS,
    launched: Callable[[], object] = lambda: None,
) -> list[Comparison]:
    """Time two models on each of `feeds`, in at least MIN_LAUNCHES fresh processes.

    It stops when every interval's half-width is at most `target`, or when `budget` seconds are spent; never because of
    where an interval lies, which would make a difference out of chance.

    Args:
        models: fp32 and INT8.
        feeds: every launch measures all of them.
        settings: how to launch.
        budget: in seconds, for all launches together.
        target: half-width as a share of the speed-up.
        seconds: to time in one launch, for each of `feeds`.
        launched: called after each launch.

    Returns:
        One comparison for each of `feeds`.

    Raises:
        StageError: a model does not load or run.
    """
    end = time.monotonic() + budget
    launches: list[list[Launch]] = []
    while True:
        launches.append(_launch(models, feeds, settings, seconds, len(launches)))
        launched()
        if len(launches) < MIN_LAUNCHES:
            continue
        by_feed = zip(feeds, zip(*launches, strict=True), strict=True)
        found = [summed_up(each, feed.samples, target) for feed, each in by_feed]
        if all(each.stopped_by == "target" for each in found) or time.monotonic() >= end:
            return found


def median_ms(model: Path, feed: StoredFeed, settings: Settings, seconds: float) -> float:
    """The median time of one call of `model` in one launch, in milliseconds.

    Raises:
        StageError: the model does not load or run.
    """
    (launch,) = _launch((model, model), [feed], settings, seconds, 0)
    return float(np.median(launch.medians())) / 1e6


def _launch(models: Pair, feeds: Sequence[StoredFeed], settings: Settings, seconds: float, number: int) -> list[Launch]:
    job = {
        "models": [str(path) for path in models],
        "threads": settings.threads,
        "feeds": [each.job() for each in feeds],
        "seconds": seconds,
        "turn": number + settings.seed,
    }
    return [
        Launch([(np.array(fp32), np.array(int8)) for fp32, int8 in each["rounds"]], each["cpu_share"])
        for each in child.ask("launch", job, (settings.lock,))
    ]
