"""The evaluation data in `artifacts/eval`: written once by export, read in batches by every stage, never held whole.

`inputs/<name>.npy` (the name percent-encoded where a file name demands it), `labels.npy` where known,
`search.npy` and `judge.npy` (sorted int64 indices along axis 0), and `manifest.json`, which names it all.
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

CHUNK_BYTES = 8 << 20
"""How much of the inputs is read at once: large enough to be fast, small enough to be nothing."""

SEARCH_SHARE = 0.25
"""The part of the samples that calibration and node selection may see; parity judges on the rest."""


@dataclass(frozen=True)
class EvalInput:
    """One model input: `shape` is that of one sample (or of one whole feed), without the counted axis 0."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path


@dataclass(frozen=True)
class Batch:
    """Some samples, ready to run: their indices in the evaluation data, and a feed of arrays by input name."""

    indices: np.ndarray
    feed: dict[str, np.ndarray]


class EvalData:
    """Evaluation data on disk. Opening it reads the manifest only.

    Raises:
        StageError: the folder is missing, or is not what `write` makes.
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
                EvalInput(each["name"], each["dtype"], tuple(each["shape"]), folder / "inputs" / each["file"])
                for each in tree["inputs"]
            )
            self._labels = folder / "labels.npy" if tree["labels"] else None
            self._folder = folder
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(f"{manifest} is no manifest of evaluation data ({error!r}). Run export again.") from error

    def indices(self, subset: Subset) -> np.ndarray:
        """The samples of one side of the split: int64, sorted."""
        indices: np.ndarray = np.load(self._folder / f"{subset}.npy")
        return indices

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """The labels of these samples, or None where none are known."""
        if self._labels is None:
            return None
        picked: np.ndarray = np.load(self._labels, mmap_mode="r")[indices]
        return picked

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """These samples of every input, by name: shape [len(indices), ...]. Text comes as an array of objects."""
        arrays = {}
        for each in self.inputs:
            # Mapped anew for each read: pages of the file that were touched leave with the mapping.
            picked = np.array(np.load(each.file, mmap_mode="r")[indices])
            arrays[each.name] = picked.astype(object) if picked.dtype.kind == "U" else picked
        return arrays

    def batches(self, indices: np.ndarray, size: int) -> Iterator[Batch]:
        """Feeds over these samples in the order given.

        In the layout `samples` a feed holds `size` samples along axis 0, the last one what remains. In the layout
        `feeds` each sample is a whole feed already, and is given alone and as it is.
        """
        step = 1 if self.layout == "feeds" else size
        bytes_each = sum(np.dtype(each.dtype).itemsize * math.prod(each.shape) for each in self.inputs)
        chunk = max(1, CHUNK_BYTES // max(1, bytes_each * step)) * step
        for start in range(0, len(indices), chunk):
            arrays = self.read(indices[start : start + chunk])
            for at in range(start, min(start + chunk, len(indices)), step):
                rows = slice(at - start, at - start + step)
                if self.layout == "feeds":
                    feed = {name: np.asarray(array[at - start]) for name, array in arrays.items()}
                else:
                    feed = {name: array[rows] for name, array in arrays.items()}
                yield Batch(indices[at : at + step], feed)


def write(
    folder: Path,
    inputs: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    layout: Layout,
    seed: int,
) -> None:
    """Write evaluation data into the empty or missing `folder`, split by a seeded shuffle.

    Args:
        folder: a temporary name; the caller puts it in place.
        inputs: arrays by input name, the same length along axis 0. Memory-mapped arrays are copied in pieces.
        labels: one per sample, or None.
        layout: what axis 0 counts.
        seed: of the split.
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
    """Disjoint sorted indices for search and for judging; a single sample goes to the judge."""
    order = np.random.default_rng(seed).permutation(samples)
    cut = max(1, round(samples * SEARCH_SHARE)) if samples > 1 else 0
    return np.sort(order[:cut]), np.sort(order[cut:])
