"""CSV and Parquet files as evaluation data: columns become the model's inputs by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.export.framework import required, rounded_by, rounding_note

SUFFIXES = (".csv", ".parquet")


def read(path: Path) -> Any:
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
        StageError: one is missing.
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
