"""The speed-up of one model over another: launches until the interval is narrow enough or the budget is spent."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.common.data.evaldata import EvalData, fill
from stages.common.timing import process
from stages.common.timing.feed import StoredFeed, store
from stages.common.timing.summary import FEWEST_LAUNCHES, Launch, PairedTiming, summarize

SECONDS = 0.4
"""How long a launch times each feed: about where longer launches and more launches narrow the interval equally."""


class ModelPair(NamedTuple):
    """Paths of two models to compare."""

    fp32: Path
    int8: Path


@dataclass(frozen=True)
class LaunchSettings:
    """Intra-op `threads`, the `seed` of every order, and the descriptor of the `lock`."""

    threads: int
    seed: int
    lock: int


def draw_feed(data: EvalData, samples: int, seed: int, folder: Path) -> StoredFeed:
    """Draw `samples` judge samples at random and store them as one feed; they repeat if there are fewer.

    Raises:
        StageError: the judge split is empty.
    """
    drawn = fill(np.random.default_rng(seed).permutation(data.indices("judge"))[:samples], samples)
    batch = next(data.batches(drawn, samples))
    return store(folder / f"batch_{samples}.npz", batch.feed, samples)


def time_pair(
    models: ModelPair,
    feeds: Sequence[StoredFeed],
    settings: LaunchSettings,
    *,
    budget: float,
    target: float,
    seconds: float = SECONDS,
    launched: Callable[[float], object] = lambda _: None,
) -> list[PairedTiming]:
    """Time two models on each of `feeds` in fresh processes, each of which measures all feeds.

    Stops when every interval's half-width, as a share of the speed-up, is at most `target`, or when another launch
    would exceed `budget`; never because of where an interval lies, which would turn chance into a difference.

    Args:
        feeds: one timing is returned for each.
        budget: seconds for all launches together; FEWEST_LAUNCHES are made in any case.
        target: half-width at which to stop.
        seconds: how long a launch times each feed.
        launched: called after each launch with the most seconds that are left.

    Raises:
        StageError: a model does not load or run.
    """
    begin = time.monotonic()
    launches: list[list[Launch]] = []
    while True:
        launches.append(_launch(models, feeds, settings, seconds, len(launches)))
        spent = time.monotonic() - begin
        one = spent / len(launches)
        missing = FEWEST_LAUNCHES - len(launches)
        launched(max(budget - spent, missing * one))
        if missing > 0:
            continue
        by_feed = zip(feeds, zip(*launches, strict=True), strict=True)
        timings = [summarize(of_feed, feed.samples, target) for feed, of_feed in by_feed]
        if all(timing.stopped_by == "target" for timing in timings) or spent + one > budget:
            return timings


def median_ms(models: ModelPair, feed: StoredFeed, settings: LaunchSettings, seconds: float) -> float:
    """The median time of a call of two equal models in a single launch, in milliseconds.

    Raises:
        StageError: the model does not load or run.
    """
    (launch,) = _launch(models, [feed], settings, seconds, 0)
    return float(np.median(launch.medians())) / 1e6


def _launch(
    models: ModelPair, feeds: Sequence[StoredFeed], settings: LaunchSettings, seconds: float, number: int
) -> list[Launch]:
    """Time both models in one fresh process; returns a launch for each feed."""
    job = {
        "models": [str(path) for path in models],
        "threads": settings.threads,
        "feeds": feeds,
        "seconds": seconds,
        "turn": number + settings.seed,
    }
    return [
        Launch([(np.array(fp32), np.array(int8)) for fp32, int8 in timed["rounds"]], timed["cpu_share"], timed["span"])
        for timed in process.ask("stages.common.timing.launch", job, (settings.lock,))
    ]
