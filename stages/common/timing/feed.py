"""Feeds on disk: a stage writes one, its workers read it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class StoredFeed(NamedTuple):
    """One feed for both models: separate arrays would differ in alignment, and so in speed.

    Attributes:
        path: path of the .npz file.
        names: names of the inputs, in the order of its arrays.
        samples: samples in one call.
    """

    path: str
    names: Sequence[str]
    samples: int


def store(path: Path, feed: Mapping[str, np.ndarray], samples: int) -> StoredFeed:
    """Write a feed. Text is stored in numpy's text type: reading pickled objects would run code."""
    arrays = [np.asarray(array, dtype=np.str_) if array.dtype.kind == "O" else array for array in feed.values()]
    np.savez(path, *arrays)
    return StoredFeed(str(path), tuple(feed), samples)


def load(job: Sequence[Any]) -> dict[str, np.ndarray]:
    """Read a `StoredFeed`, which JSON turned into a list: arrays by input name, text as objects."""
    path, names, _ = job
    with np.load(path) as archive:
        arrays = [archive[f"arr_{number}"] for number in range(len(names))]
    return {
        name: array.astype(object) if array.dtype.kind == "U" else array
        for name, array in zip(names, arrays, strict=True)
    }
