"""What each model takes: memory and load time, each model alone in fresh processes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.bench import child
from stages.bench.feeds import StoredFeed
from stages.bench.latency import Settings
from stages.common.model_file import external_data

REPEATS = 5


@dataclass(frozen=True)
class Footprint:
    """Medians over fresh processes; memory in MB (1e6 bytes) above a process that has run a one-node model."""

    load_ms: float
    first_ms: float
    resident_mb: float
    peak_load_mb: float | None
    peak_run_mb: float | None
    method: str


def measure(
    model: Path,
    feed: StoredFeed,
    one_node: tuple[Path, StoredFeed],
    settings: Settings,
    *,
    repeats: int = REPEATS,
    launched: Callable[[], object] = lambda: None,
) -> Footprint:
    """Load and run `model` in `repeats` fresh processes, one after the other.

    Raises:
        StageError: the model does not load or run.
    """
    job = {
        "model": str(model),
        "threads": settings.threads,
        "feed": feed.job(),
        "one_node": str(one_node[0]),
        "one_node_feed": one_node[1].job(),
    }
    _read_through(model)
    _read_through(external_data(model))
    answers = []
    for _ in range(repeats):
        answers.append(child.ask("probe", job, (settings.lock,)))
        launched()

    def median(key: str) -> Any:
        values = [answer[key] for answer in answers]
        return None if None in values else float(np.median(values))

    return Footprint(
        median("load_ms"),
        median("first_ms"),
        median("resident_mb"),
        median("peak_load_mb"),
        median("peak_run_mb"),
        answers[0]["method"],
    )


def _read_through(path: Path) -> None:
    """Bring a file into the system's cache: it is loading that is compared, not the disk."""
    if path.exists():
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
