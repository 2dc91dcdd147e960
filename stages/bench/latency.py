"""The speed-up of one model over another: launches until the interval is narrow, or the budget is spent."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from stages.bench import child
from stages.bench.feeds import Feeds
from stages.bench.interval import Interval, over_launches

MIN_LAUNCHES = 8
"""Fewer make the interval too narrow once measuring stops by its width: 93 to 95 % cover with 8, 90 % with 3."""

SECONDS = 0.4
"""Timed in one launch: about where more seconds and more launches narrow the interval by as much."""

Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Comparison:
    """What the launches found at one batch size."""

    interval: Interval
    fp32_ns: np.ndarray
    int8_ns: np.ndarray
    cpu_share: float
    launches: int
    samples: int
    stopped_by: Literal["target", "budget"]


@dataclass(frozen=True)
class Settings:
    """How to launch: intra-op `threads`, the `seed` of every order, and the descriptor of the `lock`."""

    threads: int
    seed: int
    lock: int


def compare(
    models: Pair,
    feeds: Sequence[Feeds],
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
        feeds: of one batch size each; every launch measures all of them.
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
    start = time.monotonic()
    answers: list[list[dict[str, object]]] = []
    while True:
        number = len(answers)
        job = {
            "models": [str(path.resolve()) for path in models],
            "threads": settings.threads,
            "feeds": [each[number] for each in feeds],
            "seconds": seconds,
            "turn": number + settings.seed,
        }
        answers.append(child.ask("launch", job, (settings.lock,)))
        launched()
        if len(answers) < MIN_LAUNCHES:
            continue
        intervals = [over_launches([answer["log_ratio"] for answer in column]) for column in zip(*answers, strict=True)]
        narrow = all(each.halfwidth <= target for each in intervals)
        if narrow or time.monotonic() - start >= budget:
            break
    return [
        Comparison(
            interval,
            fp32_ns=np.concatenate([np.array(answer["ns"][0]) for answer in column]),
            int8_ns=np.concatenate([np.array(answer["ns"][1]) for answer in column]),
            cpu_share=float(np.median([answer["cpu_share"] for answer in column])),
            launches=len(column),
            samples=each.samples,
            stopped_by="target" if narrow else "budget",
        )
        for interval, column, each in zip(intervals, zip(*answers, strict=True), feeds, strict=True)
    ]
