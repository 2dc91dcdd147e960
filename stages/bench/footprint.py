"""Memory and load time of each model, alone in fresh processes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stages.bench.inputs import OneNode
from stages.common.base import files
from stages.common.timing import process
from stages.common.timing.feed import StoredFeed
from stages.common.timing.launches import LaunchSettings

REPEATS = 7
FEWEST = 3
SECONDS = 5.0
"""A model that loads slowly is repeated less often, because chance matters less to it."""


@dataclass(frozen=True)
class Footprint:
    """Memory and load time of one model, over several fresh processes.

    Attributes:
        load_ms: session creation; the shortest of all, because every disturbance makes it longer.
        first_ms: the first run, the shortest.
        resident_mb: memory after ten runs in MB (1e6 bytes), above a process that has run a one-node model; the median.
        peak_load_mb: the peak while loading, the median; None where the system does not report it.
        peak_run_mb: the peak while running, likewise.
        method: where the memory figures come from.
        load_spread: the least and the largest of the processes; so does `resident_spread`.
    """

    load_ms: float
    first_ms: float
    resident_mb: float
    peak_load_mb: float | None
    peak_run_mb: float | None
    method: str
    load_spread: Sequence[float]
    resident_spread: Sequence[float]


def measure_footprints(
    models: Sequence[Path],
    feed: StoredFeed,
    one_node: OneNode,
    settings: LaunchSettings,
    *,
    launched: Callable[[], object] = lambda: None,
) -> list[Footprint]:
    """Load and run each model alone in a few fresh processes, in turns: a lasting disturbance then meets all models.

    Raises:
        StageError: a model does not load or run.
    """
    for model in models:
        files.sha256(model)  # reads it into the system's cache: loading is compared, not the disk
    end = time.monotonic() + SECONDS * len(models)
    answers: list[list[dict[str, Any]]] = [[] for _ in models]
    while len(answers[0]) < FEWEST or (len(answers[0]) < REPEATS and time.monotonic() < end):
        for model, of_model in zip(models, answers, strict=True):
            job = {"model": str(model), "threads": settings.threads, "feed": feed, "one_node": one_node}
            of_model.append(process.ask("stages.bench.workers.probe", job, (settings.lock,)))
            launched()
    return [_summarize(of_model) for of_model in answers]


def _summarize(answers: Sequence[Mapping[str, Any]]) -> Footprint:
    loads, resident = ([answer[key] for answer in answers] for key in ("load_ms", "resident_mb"))
    return Footprint(
        load_ms=min(loads),
        first_ms=min(answer["first_ms"] for answer in answers),
        resident_mb=median(resident),
        peak_load_mb=_median_of_known([answer["peak_load_mb"] for answer in answers]),
        peak_run_mb=_median_of_known([answer["peak_run_mb"] for answer in answers]),
        method=answers[0]["method"],
        load_spread=(min(loads), max(loads)),
        resident_spread=(min(resident), max(resident)),
    )


def _median_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
