"""Evaluation data in the user's own files: arrays (`.npz`, `.npy`, a folder of `.npy` files) or a table.

In a folder, names may be percent-encoded as in `artifacts/eval/inputs`: `serving%2Fx%3A0.npy`.
"""

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import numpy as np

from stages.common.base.errors import StageError
from stages.common.base.files import named
from stages.export import tables

DEFAULT_LABELS = "labels"
"""The default of `export.labels`: these labels may be missing."""


@contextmanager
def opened(path: Path, input_names: Sequence[str], labels: str, scratch: Path) -> Iterator[tuple[Any, Any]]:
    """Yield the inputs and the labels.

    Inputs are memory-mapped arrays by name, one array (an `.npy` file), or a data frame (a table). Labels are the array
    or column called `labels`, unless an input has that name; None if there is none. Arrays of an archive are unpacked
    into `scratch` to be mapped.

    Raises:
        StageError: the file or folder does not exist, or its data cannot be read.
    """
    if not path.exists():
        raise StageError(
            f"export.eval_data is {path.as_posix()}, which does not exist. "
            "Name an .npz, an .npy, a folder of .npy files, a .csv or a .parquet."
        )
    if path.suffix.lower() in tables.SUFFIXES:
        frame = tables.read(path)
        values = None
        if _has_labels(list(frame.columns), input_names, labels, path):
            values = frame[labels].to_numpy()
            frame = frame.drop(columns=labels)
        yield frame, values
        return
    if path.suffix.lower() == ".npy":
        yield _mapped(path, path.stem, path), None
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scratch, prefix=".eval.", suffix=".tmp") as unpacked:
        files = _npy_files(path, Path(unpacked))
        arrays = {name: _mapped(file, name, path) for name, file in sorted(files.items())}
        values = arrays.pop(labels) if _has_labels(arrays, input_names, labels, path) else None
        if not arrays:
            raise StageError(f"export.eval_data {path.as_posix()} holds no input arrays. Save one per model input.")
        yield arrays, values


def _has_labels(names: Any, input_names: Sequence[str], labels: str, path: Path) -> bool:
    if labels in input_names:
        return False
    if labels not in names and labels != DEFAULT_LABELS:
        raise StageError(
            f"export.labels is {labels}, but export.eval_data {path.as_posix()} has no such array or column; it has "
            f"{', '.join(map(repr, map(str, names)))}. Name one of these, or set export.labels to {DEFAULT_LABELS}."
        )
    return labels in names


def _npy_files(path: Path, unpacked: Path) -> dict[str, Path]:
    if path.is_dir():
        return {unquote(file.stem): file for file in path.glob("*.npy")}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if member.endswith(".npy")]
            files = {member.removesuffix(".npy"): unpacked / f"{i}.npy" for i, member in enumerate(members)}
            for member, file in zip(members, files.values(), strict=True):
                # Streamed to disk, as the archive may be larger than memory.
                with named(file), archive.open(member) as source, file.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise StageError(
            f"export.eval_data {path.as_posix()} is not an .npz file. Write it with numpy.savez."
        ) from error
    return files


def _mapped(file: Path, name: str, path: Path) -> np.ndarray:
    try:
        return np.asanyarray(np.load(file, mmap_mode="r" if file.stat().st_size else None, allow_pickle=False))
    except (ValueError, EOFError) as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise StageError(
                f"export.eval_data {path.as_posix()}: the array '{name}' holds Python objects. "
                "Save text with dtype str."
            ) from error
        raise StageError(
            f"export.eval_data {path.as_posix()}: '{name}' is not a numpy array ({error}). Save it with numpy.save."
        ) from error
