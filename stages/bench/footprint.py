"""Memory and load time of each model, alone in a fresh process."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stages.bench.inputs import IdentityModel
from stages.common.base import files
from stages.common.timing import process
from stages.common.timing.feed import StoredFeed
from stages.common.timing.launches import LaunchSettings

REPEATS = 7
FEWEST = 2
SECONDS = 10.0
"""Most and fewest processes per model, and the seconds that all may take: slow loads vary less, so fewer will do."""


@dataclass(frozen=True)
class Footprint:
    """Memory and load time of one model, over several fresh processes.

    Attributes:
        load_ms: session creation; the minimum, because every disturbance makes it longer.
        first_ms: the first run; the minimum.
        resident_mb: memory after ten runs in MB (1e6 bytes), above that of a process with the identity model; the
            median.
        peak_load_mb: the peak while loading; the median; None if the system does not report it.
        peak_run_mb: the peak while running, likewise.
        method: where the memory figures come from.
        load_spread: minimum and maximum of the load time over the processes.
        resident_spread: minimum and maximum of the memory.
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
    identity: IdentityModel,
    settings: LaunchSettings,
    *,
    budget: float = SECONDS,
    launched: Callable[[], object] = lambda: None,
) -> list[Footprint]:
    """Load and run each model alone in a few fresh processes, in turns, so that a lasting disturbance affects all.

    After FEWEST processes of each, up to REPEATS follow in at most SECONDS and `budget` seconds. `launched` is called
    after each.

    Raises:
        StageError: a model does not load or run.
    """
    for model in models:
        files.sha256(model)  # reads it into the page cache, so that loading is compared and not the disk
    begin = time.monotonic()
    measured: list[list[dict[str, Any]]] = [[] for _ in models]
    while (done := len(measured[0])) < FEWEST or (
        done < REPEATS and (time.monotonic() - begin) * (1 + 1 / done) < min(SECONDS, budget)
    ):
        for model, launches in zip(models, measured, strict=True):
            job = {"model": str(model), "threads": settings.threads, "feed": feed, "identity": identity}
            launches.append(process.ask("stages.bench.workers.probe", job, (settings.lock,)))
            launched()
    return list(map(_summarize, measured))


def _summarize(launches: Sequence[Mapping[str, Any]]) -> Footprint:
    """The footprint of one model from the figures of its processes."""
    known = {key: [launch[key] for launch in launches if launch[key] is not None] for key in launches[0]}
    loads, resident = known["load_ms"], known["resident_mb"]
    return Footprint(
        load_ms=min(loads),
        first_ms=min(known["first_ms"]),
        resident_mb=median(resident),
        peak_load_mb=median(known["peak_load_mb"]) if known["peak_load_mb"] else None,
        peak_run_mb=median(known["peak_run_mb"]) if known["peak_run_mb"] else None,
        method=launches[0]["method"],
        load_spread=(min(loads), max(loads)),
        resident_spread=(min(resident), max(resident)),
    )
