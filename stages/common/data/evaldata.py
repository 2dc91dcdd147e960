"""The evaluation data in `artifacts/eval`: written once by export, read in batches, never loaded as a whole.

`inputs/<name>.npy` (the name percent-encoded where it is not a valid file name), `labels.npy` where labels are known,
`search.npy` and `judge.npy` (sorted int64 indices along axis 0), and `manifest.json`, which describes them.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np

from stages.common.base import paths
from stages.common.base.errors import MissingInputError, StageError

Layout = Literal["samples", "feeds"]
Subset = Literal["search", "judge"]

SUBSETS: tuple[Subset, ...] = ("search", "judge")

CHUNK_BYTES = 8 << 20
"""Bytes of inputs read at once."""

SEARCH_SHARE = 0.25
"""The share of the samples that calibration and node selection may use; parity judges on the rest."""


@dataclass(frozen=True)
class EvalInput:
    """One model input. `shape` is that of one sample (or of one whole feed), without axis 0, which counts them."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path


@dataclass(frozen=True)
class Batch:
    """One call of a model.

    Attributes:
        indices: indices of the samples whose answers count, int64 [n].
        feed: arrays by input name.
        size: samples in the feed, 1 if a sample is a whole feed; samples after the first n only fill the batch.
    """

    indices: np.ndarray
    feed: dict[str, np.ndarray]
    size: int


class EvalData:
    """Evaluation data on disk. Opening it reads only the manifest.

    Raises:
        MissingInputError: the folder is missing.
        StageError: the folder was not made by `write`.
    """

    def __init__(self, folder: Path = paths.EVAL) -> None:
        manifest = folder / "manifest.json"
        if not manifest.exists():
            raise MissingInputError(folder, "export")
        try:
            tree = json.loads(manifest.read_text(encoding="utf-8"))
            self.layout: Layout = tree["layout"]
            self.samples: int = tree["samples"]
            self.inputs = tuple(
                EvalInput(entry["name"], entry["dtype"], tuple(entry["shape"]), folder / "inputs" / entry["file"])
                for entry in tree["inputs"]
            )
            self._labels = folder / "labels.npy" if tree["labels"] else None
            self._folder = folder
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(
                f"{manifest.as_posix()} does not describe evaluation data ({error!r}). Run export again."
            ) from error

    def indices(self, subset: Subset) -> np.ndarray:
        """The indices of the samples in a subset: int64, sorted.

        Raises:
            StageError: the subset `judge` is empty.
        """
        indices = np.asarray(np.load(self._folder / f"{subset}.npy"))
        if subset == "judge" and not len(indices):
            raise StageError(f"{self._folder.as_posix()} has no samples to judge. Give export more evaluation data.")
        return indices

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample on disk, over all inputs; at least 1."""
        return max(1, sum(np.dtype(entry.dtype).itemsize * math.prod(entry.shape) for entry in self.inputs))

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """The labels of these samples; None if the data has no labels."""
        return None if self._labels is None else np.array(np.load(self._labels, mmap_mode="r")[indices])

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """These samples of every input, by name: arrays [len(indices), ...]. Text is an array of str objects."""
        arrays = {}
        for entry in self.inputs:
            # Mapped anew for each read, so that its pages are released with the mapping.
            values = np.array(np.load(entry.file, mmap_mode="r")[indices])
            arrays[entry.name] = values.astype(object) if values.dtype.kind == "U" else values
        return arrays

    def batches(self, indices: np.ndarray, size: int) -> Iterator[Batch]:
        """Feeds of `size` samples each, in the order given; the last one holds the remainder.

        In the layout `feeds` each sample is a whole feed and is passed as it is.
        """
        step = 1 if self.layout == "feeds" else size
        chunk = max(1, CHUNK_BYTES // (self.sample_bytes * step)) * step
        for start in range(0, len(indices), chunk):
            arrays = self.read(indices[start : start + chunk])
            for at in range(start, min(start + chunk, len(indices)), step):
                rows = slice(at - start, at - start + step)
                if self.layout == "feeds":
                    feed = {name: np.asarray(array[at - start]) for name, array in arrays.items()}
                else:
                    feed = {name: array[rows] for name, array in arrays.items()}
                chosen = indices[at : at + step]
                yield Batch(chosen, feed, len(chosen))


def fill(indices: np.ndarray, batch: int) -> np.ndarray:
    """`indices` [n], n > 0, repeated to fill a batch: int64 [max(n, batch)]. Only the first n answers count."""
    return np.resize(indices, max(len(indices), batch))


def write(folder: Path, inputs: Mapping[str, np.ndarray], labels: np.ndarray | None, layout: Layout, seed: int) -> None:
    """Write evaluation data into `folder`, which the caller moves into place; `seed` is that of the split.

    All arrays have the same length along axis 0; labels are one per sample, or None.
    """
    (folder / "inputs").mkdir(parents=True)
    samples = len(next(iter(inputs.values())))
    entries = []
    for name, array in inputs.items():
        file = quote(name, safe=" ()[]+,=@") + ".npy"
        text = array.dtype.kind in "OUS"
        stored = np.asarray(array, dtype=np.str_) if text else array
        np.save(folder / "inputs" / file, stored)
        entries.append({"name": name, "dtype": str(stored.dtype), "shape": list(array.shape[1:]), "file": file})
    if labels is not None:
        np.save(folder / "labels.npy", np.asarray(labels, dtype=np.str_) if labels.dtype.kind == "O" else labels)
    search, judge = split(samples, seed)
    np.save(folder / "search.npy", search)
    np.save(folder / "judge.npy", judge)
    manifest = {
        "layout": layout,
        "samples": samples,
        "inputs": entries,
        "labels": labels is not None,
        "split": {"seed": seed, "search": len(search), "judge": len(judge)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def split(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of `search` and of `judge`, int64, disjoint and sorted; a lone sample goes to `judge`."""
    order = np.random.default_rng(seed).permutation(samples)
    cut = max(1, round(samples * SEARCH_SHARE)) if samples > 1 else 0
    return np.sort(order[:cut]), np.sort(order[cut:])
