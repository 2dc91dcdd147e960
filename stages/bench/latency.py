"""The speed-up of one model over another: launches until the interval is narrow, or the budget is spent."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stages.bench import child
from stages.bench.feeds import Feeds
from stages.bench.interval import Interval, over_launches

MIN_LAUNCHES = 8
"""Fewer make the interval too narrow once measuring stops by its width."""

SECONDS = 0.4
"""Timed in one launch: about where more seconds and more launches narrow the interval by as much."""

Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Settings:
    """How to launch: intra-op `threads`, the `seed` of every order, and the descriptor of the `lock`."""

    threads: int
    seed: int
    lock: int


@dataclass(frozen=True)
class Comparison:
    """What the launches found at one batch size.

    Attributes:
        interval: of the speed-up.
        fp32_ns: every timed call of the fp32 model in nanoseconds, shape [calls].
        int8_ns: the same of the INT8 model.
        cpu_share: CPU time over wall time of the timed rounds, the median launch.
        launches: how many.
        samples: in one call.
        stopped_by: what ended it, the target half-width or the budget.
    """

    interval: Interval
    fp32_ns: np.ndarray
    int8_ns: np.ndarray
    cpu_share: float
    launches: int
    samples: int
    stopped_by: Literal["target", "budget"]

    def of_one_model(self) -> "Comparison":
        """The same where both files hold one model: the speed-up is 1, and every call is a call of both."""
        ns = np.concatenate([self.fp32_ns, self.int8_ns])
        return replace(self, interval=Interval(1.0, 1.0, 1.0), fp32_ns=ns, int8_ns=ns)


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
    end = time.monotonic() + budget
    answers: list[list[dict[str, Any]]] = []
    while True:
        answers.append(_launch(models, feeds, settings, seconds, len(answers)))
        launched()
        if len(answers) < MIN_LAUNCHES:
            continue
        columns = list(zip(*answers, strict=True))
        intervals = [over_launches([answer["log_ratio"] for answer in column]) for column in columns]
        narrow = all(each.halfwidth <= target for each in intervals)
        if narrow or time.monotonic() >= end:
            break
    return [
        Comparison(
            interval,
            fp32_ns=np.concatenate([answer["ns"][0] for answer in column]),
            int8_ns=np.concatenate([answer["ns"][1] for answer in column]),
            cpu_share=float(np.median([answer["cpu_share"] for answer in column])),
            launches=len(column),
            samples=each.samples,
            stopped_by="target" if narrow else "budget",
        )
        for interval, column, each in zip(intervals, columns, feeds, strict=True)
    ]


def median_ms(model: Path, feeds: Feeds, settings: Settings, seconds: float) -> float:
    """The median time of one call of `model` in one launch, in milliseconds.

    Raises:
        StageError: the model does not load or run.
    """
    (answer,) = _launch((model, model), [feeds], settings, seconds, 0)
    return float(np.median(np.concatenate(answer["ns"]))) / 1e6


def _launch(
    models: Pair, feeds: Sequence[Feeds], settings: Settings, seconds: float, number: int
) -> list[dict[str, Any]]:
    job = {
        "models": [str(path.resolve()) for path in models],
        "threads": settings.threads,
        "feeds": [each[number] for each in feeds],
        "seconds": seconds,
        "turn": number + settings.seed,
    }
    answers: list[dict[str, Any]] = child.ask("launch", job, (settings.lock,))
    for answer in answers:
        answer["ns"] = [np.array(durations) for durations in answer["ns"]]
    return answers
