"""What the models are timed on: real samples of the judge split, written once for all measuring processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.base.errors import StageError
from stages.common.data.evaldata import EvalData


@dataclass(frozen=True)
class StoredFeed:
    """One feed on disk, the same for both models: arrays of their own would differ in alignment, and so in speed.

    Attributes:
        path: of an .npz file.
        names: of the inputs, in the order of its arrays.
        samples: in one call.
    """

    path: str
    names: tuple[str, ...]
    samples: int

    def job(self) -> dict[str, Any]:
        """What `load` needs, as JSON can hold it."""
        return {"path": self.path, "names": self.names}


def draw(data: EvalData, samples: int, seed: int, folder: Path) -> StoredFeed:
    """Draw a feed of `samples` judge samples, without repetition as far as the split has enough.

    Raises:
        StageError: the judge split is empty.
    """
    judge = data.indices("judge")
    if not len(judge):
        raise StageError("artifacts/eval holds no sample to judge on. Give export more evaluation data.")
    drawn = np.resize(np.random.default_rng(seed).permutation(judge), samples)
    batch = next(data.batches(drawn, samples))
    return store(folder / f"batch_{samples}.npz", batch.feed, samples)


def store(path: Path, feed: Mapping[str, np.ndarray], samples: int) -> StoredFeed:
    """Write one feed.

    Text is stored by numpy's own text type: a file of pickled objects would run code when it is read.
    """
    arrays = [np.asarray(array, dtype=np.str_) if array.dtype.kind == "O" else array for array in feed.values()]
    np.savez(path, *arrays)
    return StoredFeed(str(path), tuple(feed), samples)


def load(job: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read a stored feed: arrays by input name, text as objects."""
    with np.load(job["path"]) as archive:
        arrays = [archive[f"arr_{number}"] for number in range(len(job["names"]))]
    return {
        name: array.astype(object) if array.dtype.kind == "U" else array
        for name, array in zip(job["names"], arrays, strict=True)
    }
