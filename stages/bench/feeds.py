"""What the models are timed on: real samples of the judge split, written once for all measuring processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.errors import StageError
from stages.common.evaldata import EvalData

VARIETY = 8
"""Launches differ in their samples, so that the interval covers those too: this many feeds, taken in turn."""


@dataclass(frozen=True)
class Feeds:
    """Some feeds of the same batch size, on disk; `samples` in each, `repeated` if the judge split has fewer."""

    files: tuple[dict[str, Any], ...]
    samples: int
    repeated: bool

    def __getitem__(self, launch: int) -> dict[str, Any]:
        return self.files[launch % len(self.files)]


def write(data: EvalData, samples: int, seed: int, folder: Path) -> Feeds:
    """Draw feeds of `samples` judge samples each, without repetition as far as the split has enough.

    Raises:
        StageError: the judge split is empty.
    """
    judge = data.indices("judge")
    if not len(judge):
        raise StageError("artifacts/eval holds no sample to judge on. Give export more evaluation data.")
    shuffled = np.random.default_rng(seed).permutation(judge)
    count = min(VARIETY, max(1, len(judge) // samples))
    drawn = np.resize(shuffled, count * samples)
    files = tuple(
        store(folder / f"batch_{samples}_{number}.npz", batch.feed)
        for number, batch in enumerate(data.batches(drawn, samples))
    )
    return Feeds(files, samples, repeated=samples > len(judge))


def store(path: Path, feed: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write one feed; returns what `load` needs to read it, as JSON can hold it.

    Text is stored by numpy's own text type: a file of pickled objects would run code when it is read.
    """
    arrays = [np.asarray(array, dtype=np.str_) if array.dtype.kind == "O" else array for array in feed.values()]
    np.savez(path, *arrays)
    return {"path": str(path), "names": list(feed)}


def load(stored: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read a feed that `store` wrote: arrays by input name, text as objects."""
    with np.load(stored["path"]) as archive:
        arrays = [archive[f"arr_{number}"] for number in range(len(stored["names"]))]
    return {
        name: array.astype(object) if array.dtype.kind == "U" else array
        for name, array in zip(stored["names"], arrays, strict=True)
    }
