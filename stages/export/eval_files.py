"""Evaluation data in the user's own files: arrays (`.npz`, `.npy`, a folder of `.npy` files) or a table.

The columns of a table become the model's inputs by name. In a folder, names may be percent-encoded as in
`artifacts/eval/inputs`: `serving%2Fx%3A0.npy`.
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
import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.common.base.files import named
from stages.export.framework import required, rounded_by, rounding_note

TABLES = (".csv", ".parquet")

DEFAULT_LABELS = "labels"
"""The default of `export.labels`. Evaluation data may lack labels of this name; any other name must exist."""


@contextmanager
def opened(path: Path, input_names: Sequence[str], labels: str, scratch: Path) -> Iterator[tuple[Any, Any]]:
    """Yield the inputs and the labels.

    The inputs are memory-mapped arrays by name, one array (an `.npy` file), or a data frame (a table). The labels are
    the array or column called `labels`, unless an input has that name; None if the data has no labels. Arrays of an
    archive are unpacked into `scratch` to be mapped.

    Raises:
        StageError: the file or folder does not exist, or its data cannot be read.
    """
    if not path.exists():
        raise StageError(
            f"export.eval_data is {path.as_posix()}, which does not exist. "
            "Name an .npz, an .npy, a folder of .npy files, a .csv or a .parquet."
        )
    if path.suffix.lower() in TABLES:
        frame = _read_table(path)
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


def _read_table(path: Path) -> Any:
    """Read a table as a pandas data frame.

    Raises:
        StageError: pandas or pyarrow is missing, or the file is not a table.
    """
    pandas = required("pandas", f"Reading {path.as_posix()}", "pandas pyarrow")
    if path.suffix.lower() == ".parquet":
        required("pyarrow", f"Reading {path.as_posix()}", "pandas pyarrow")
    try:
        frame = pandas.read_csv(path) if path.suffix.lower() == ".csv" else pandas.read_parquet(path)
    except Exception as error:  # its readers raise anything
        reason = " ".join(str(error).split()).rstrip(".")
        raise StageError(
            f"export.eval_data {path.as_posix()} is not a readable {path.suffix[1:]} table ({reason}). Save it again."
        ) from error
    return frame


def select(frame: Any, columns: Sequence[str]) -> Any:
    """These columns of a data frame, in this order.

    Raises:
        StageError: a column is missing.
    """
    if missing := [name for name in columns if name not in frame.columns]:
        raise StageError(
            f"The evaluation data has no column '{missing[0]}', which the model takes; it has "
            f"{', '.join(map(repr, map(str, frame.columns)))}. Add it, or rename its column."
        )
    return frame[list(columns)]


def as_inputs(frame: Any, inputs: Sequence[ir.Value]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns of a table as the inputs of an ONNX model, and notes on what was rounded.

    Each input takes the column of its name, as [samples] or [samples, 1]; a model with one input of another name takes
    all columns, in order, as [samples, columns].

    Raises:
        StageError: a column is missing, or cannot be cast without loss (float64 to float32 is allowed, and noted).
    """
    names = [value.name or "" for value in inputs]
    arrays: dict[str, np.ndarray] = {}
    rounded: dict[str, float] = {}
    if len(names) == 1 and names[0] not in frame.columns:
        parts = {names[0]: list(frame.columns)}
    else:
        select(frame, names)
        parts = {name: [name] for name in names}
    for input_name, value in zip(names, inputs, strict=True):
        columns = [_cast(frame[name], str(name), value, rounded) for name in parts[input_name]]
        flat = len(columns) == 1 and value.shape is not None and value.shape.rank() == 1
        arrays[input_name] = columns[0] if flat else np.stack(columns, axis=1)
    return arrays, rounding_note(rounded)


def _cast(column: Any, name: str, model_input: ir.Value, rounded: dict[str, float]) -> np.ndarray:
    if model_input.dtype == ir.DataType.STRING:
        if column.isna().any():
            raise _missing(column, name, "Text has no missing values in ONNX: fill them.")
        return np.asarray(column.astype(str), dtype=np.str_)
    expected = np.dtype((model_input.dtype or ir.DataType.FLOAT).numpy())
    if column.dtype.kind not in "iufb":
        raise StageError(
            f"The column '{name}' of the evaluation data is {column.dtype}, and the model input '{model_input.name}' "
            f"expects {expected}. Encode it as in training."
        )
    values = column.to_numpy()
    if column.isna().any() and expected.kind != "f":
        raise _missing(column, name, f"The model input '{model_input.name}' expects {expected}: fill them.")
    cast = values.astype(expected)
    if values.dtype.kind == "f" and expected.kind == "f":
        rounded[name] = rounded_by(values, cast)
    elif not np.array_equal(cast.astype(values.dtype), values):
        row = int(np.flatnonzero(cast.astype(values.dtype) != values)[0])
        raise StageError(
            f"The column '{name}' of the evaluation data holds {values[row]} in row {row}, which {expected}, the dtype "
            f"of the model input '{model_input.name}', cannot hold exactly. Convert the column."
        )
    return np.asarray(cast)


def _missing(column: Any, name: str, remedy: str) -> StageError:
    row = int(np.flatnonzero(column.isna())[0])
    return StageError(f"The column '{name}' of the evaluation data has a missing value in row {row}. {remedy}")
