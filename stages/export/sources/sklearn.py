"""scikit-learn estimators: conversion by skl2onnx, and the answers of the estimator itself."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.common.base.params import Export
from stages.export import eval_files
from stages.export.drift import SourceAnswers
from stages.export.framework import (
    Converted,
    Framework,
    as_model,
    defined_in,
    first_line,
    listed,
    only_array,
    read_by,
    required,
    rounded_by,
    rounding_note,
)
from stages.export.sources import estimators, targets

NAME = "scikit-learn"

TRUSTED = frozenset(
    f"sklearn.neural_network._stochastic_optimizers.{name}" for name in ("AdamOptimizer", "SGDOptimizer")
)
"""Types in every MLP that skops does not trust, although they are scikit-learn's own and hold only numbers."""

MISSING_TEXT = "nan"
"""What a missing value in a column of text becomes: ONNX has no missing text."""


def load(path: Path, *, allow_pickle: bool = False) -> Any:
    """Read an estimator that skops wrote.

    Raises:
        StageError: skops is missing, or the file holds types that skops does not trust and `allow_pickle` is false.
    """
    skops = required("skops.io", f"Loading {path.as_posix()}", "skops")
    unlisted = read_by(lambda: skops.get_untrusted_types(file=path), path, "skops")
    if (untrusted := sorted(set(unlisted) - TRUSTED)) and not allow_pickle:
        raise StageError(
            f"{path.as_posix()} holds types that skops does not trust: {', '.join(untrusted)}. If you trust them, set "
            "export.allow_pickle to true."
        )
    return read_by(lambda: skops.load(path, trusted=unlisted), path, "skops")


def input_names(model: Any) -> list[str]:
    """The columns that the estimator was trained on; empty if it was not trained on a data frame."""
    return [str(name) for name in getattr(model, "feature_names_in_", [])]


def convert(model: Any, inputs: Any, params: Export) -> Converted:
    """Export an estimator; classifiers without ZipMap, so that probabilities are one array [samples, classes].

    Raises:
        StageError: skl2onnx cannot convert the estimator, or an estimator cannot take the inputs.
    """
    inputs = only_array(inputs, NAME)
    if hasattr(inputs, "columns") and (columns := input_names(model)):
        inputs = eval_files.select(inputs, columns)
    arrays, notes = onnx_inputs(inputs)
    converted = _to_onnx(model, arrays, params.opset)
    # skl2onnx changes names (no spaces, no slashes) and keeps their order.
    names = [value.name or "" for value in converted.graph.inputs]
    return Converted(
        converted, dict(zip(names, arrays.values(), strict=True)), fitted_answers(model, inputs), tuple(notes)
    )


def onnx_inputs(inputs: Any) -> tuple[dict[str, np.ndarray], list[str]]:
    """The evaluation inputs as the exported model takes them, and notes on what was cast.

    A two-dimensional array becomes the input `X` [samples, features], a one-dimensional array of texts `X`
    [samples, 1]; a data frame becomes one input [samples, 1] per column, named after it. Floats become float32,
    integers and booleans int64, anything else text.

    Raises:
        StageError: the inputs are anything else, which scikit-learn would refuse too.
    """
    rounded: dict[str, float] = {}
    if hasattr(inputs, "columns"):
        missing: list[str] = []
        columns = {str(name): _column(inputs[name], str(name), rounded, missing) for name in inputs.columns}
        notes = rounding_note(rounded)
        if missing:
            notes.append(
                f"{listed(missing)} {'has' if len(missing) == 1 else 'have'} missing values; ONNX has no missing text, "
                f"so the exported model takes the text '{MISSING_TEXT}' in their place."
            )
        return columns, notes
    array = np.asarray(inputs)
    if array.ndim == 1 and array.dtype.kind in "OU":  # what text vectorizers take
        array = array.reshape(-1, 1)
    if array.ndim != 2:
        given = f"the shape {list(array.shape)}" if array.ndim else f"the type {type(inputs).__name__}"
        raise StageError(
            f"The evaluation data of a scikit-learn model has {given}. "
            "Return a dense two-dimensional array [samples, features], a one-dimensional array of texts, "
            "or a data frame."
        )
    return {"X": _feedable(array, "", rounded)}, rounding_note(rounded)


def _column(column: Any, name: str, rounded: dict[str, float], missing: list[str]) -> np.ndarray:
    array = column.to_numpy()
    if array.dtype.kind not in "iubf" and column.isna().any() and any(isinstance(value, str) for value in array):
        missing.append(name)
        array = np.where(column.isna(), MISSING_TEXT, array).astype(np.str_)
    return _feedable(array.reshape(-1, 1), name, rounded)


def _feedable(array: np.ndarray, name: str, rounded: dict[str, float]) -> np.ndarray:
    if array.dtype.kind == "O":  # a data frame with mixed columns gives numbers as objects
        plain = np.array(array.tolist())
        array = plain if plain.dtype.kind in "iubf" else array
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        cast = array.astype(np.float32)
        rounded[name] = rounded_by(array, cast)
        return cast
    return array.astype(np.str_)


def _to_onnx(model: Any, inputs: dict[str, np.ndarray], opset: int) -> ir.Model:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn.base import is_classifier

    kinds = {"f": FloatTensorType, "i": Int64TensorType, "U": StringTensorType}
    types = [(name, kinds[array.dtype.kind]([None, array.shape[1]])) for name, array in inputs.items()]
    convertible, back = targets.split(estimators.convertible(model, MISSING_TEXT))
    if len(inputs) > 1 and all(array.dtype.kind in "fi" for array in inputs.values()):
        convertible = estimators.joining(convertible, list(inputs))
    estimators.register_boosted_trees(set(sys.modules))
    # Without a name the graph gets a random one, and exports differ in their bytes.
    export = partial(
        to_onnx,
        convertible,
        initial_types=types,
        target_opset={"": opset, "ai.onnx.ml": 3},
        name=type(model).__name__,
    )
    try:
        # skl2onnx gives booleans for integers to the trees of HistGradientBoosting, which onnx 1.23 refuses.
        with mock.patch("skl2onnx.common._container.make_node", estimators.make_node):
            if not is_classifier(convertible):
                return as_model(targets.append(export(), back))
            last = [convertible]
            while hasattr(last[-1], "steps"):
                last.append(last[-1].steps[-1][1])
            try:
                return as_model(export(options={id(part): {"zipmap": False} for part in last}))
            except NameError:  # raised for an option that an estimator lacks: LinearSVC never gets a ZipMap
                return as_model(export(options={id(part): {} for part in last}))
    except Exception as error:  # its converters raise anything
        cause = first_line(error)
        newer = f"Set export.opset above {opset}, or export" if "opset" in cause else "Export"
        remedy = f"{newer} it yourself, and return the ONNX model from export.source."
        if not estimators.is_fitted(model):
            remedy = "Fit it first."
        raise StageError(f"skl2onnx cannot export {type(model).__name__} ({cause}). {remedy}") from error


def rows(inputs: Any, indices: np.ndarray) -> Any:
    """Samples of an array or a data frame, of the same type."""
    return inputs.iloc[indices] if hasattr(inputs, "iloc") else np.asarray(inputs)[indices]


def fitted_answers(model: Any, inputs: Any) -> SourceAnswers:
    """The answers of a fitted estimator to its evaluation inputs, as the callable returned them.

    A classifier answers with labels [n] and, if it can, probabilities [n, classes]; other estimators answer with
    predictions or transformed features.

    The function that is returned raises StageError if the estimator fails, such as on NaN if its training data had no
    NaN.
    """

    def answers(indices: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        if hasattr(model, "predict_proba") and len(names) == 2:
            methods = ["predict", "predict_proba"]
        else:
            methods = ["predict" if hasattr(model, "predict") else "transform"]
        try:
            arrays = [getattr(model, method)(rows(inputs, indices)) for method in methods]
        except Exception as error:  # estimators raise anything
            raise StageError(
                f"{type(model).__name__}.{methods[0]} fails on the evaluation data ({first_line(error)}). "
                "Give the data as the estimator takes it."
            ) from error
        # An estimator with several outputs returns a list of probabilities, one array per output.
        return {name: array for name, array in zip(names, arrays, strict=False) if isinstance(array, np.ndarray)}

    return answers


FRAMEWORK = Framework(NAME, (".skops",), defined_in("sklearn"), load, input_names, convert)
