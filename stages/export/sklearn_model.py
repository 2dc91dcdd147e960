"""scikit-learn estimators: conversion with skl2onnx, and the answers they give themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx

from stages.common.base.errors import StageError


def onnx_inputs(inputs: Any) -> dict[str, np.ndarray]:
    """The evaluation inputs as the exported model takes them.

    A two-dimensional array becomes the one input `X` [samples, features], a row of texts `X` [samples, 1]; a data frame
    becomes one input [samples, 1] for each column, named after it. Numbers become float32 (int64 where all are whole
    and typed so), the rest text.

    Raises:
        StageError: anything else, as scikit-learn would refuse it too.
    """
    if hasattr(inputs, "columns"):
        return {str(name): _feedable(inputs[name].to_numpy().reshape(-1, 1)) for name in inputs.columns}
    array = np.asarray(inputs)
    if array.ndim == 1 and array.dtype.kind in "OU":  # what text vectorisers take
        array = array.reshape(-1, 1)
    if array.ndim != 2:
        found = f"the shape {list(array.shape)}" if array.ndim else f"the type {type(inputs).__name__}"
        raise StageError(
            f"The evaluation data of a scikit-learn model have {found}. "
            "Return a dense two-dimensional array [samples, features], a row of texts, or a data frame."
        )
    return {"X": _feedable(array)}


def convert(model: Any, inputs: dict[str, np.ndarray], opset: int) -> onnx.ModelProto:
    """Export with skl2onnx, classifiers without ZipMap: probabilities come as one array [samples, classes].

    Raises:
        StageError: skl2onnx cannot convert the estimator, or one of its parts.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn.base import is_classifier

    kinds = {"f": FloatTensorType, "i": Int64TensorType, "U": StringTensorType}
    types = [(name, kinds[array.dtype.kind]([None, array.shape[1]])) for name, array in inputs.items()]
    # Unnamed, the graph is called by a random number, and no two exports have the same bytes.
    export = partial(
        to_onnx,
        model,
        initial_types=types,
        target_opset={"": opset, "ai.onnx.ml": 3},
        name=type(model).__name__,
    )
    try:
        if not is_classifier(model):
            return export()
        try:
            return export(options={id(model): {"zipmap": False}})
        except NameError:  # raised for an option that an estimator does not have: LinearSVC has no ZipMap to leave out
            return export()
    except Exception as error:  # its converters raise anything
        first = str(error).strip().split("\n")[0].rstrip(".,")
        raise StageError(
            f"skl2onnx cannot export {type(model).__name__}: {type(error).__name__}: {first}. "
            "Export it yourself, and return the ONNX model from export.source."
        ) from error


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator with its evaluation inputs, as the callable returned them."""

    model: Any
    inputs: Any

    def answers(self, indices: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """What the estimator says itself, by the name of the exported model's output that says the same.

        Args:
            indices: of the samples, int64.
            names: of the exported model's outputs.

        Returns:
            For a classifier its labels [samples] and, where it has them, its probabilities [samples, classes]; else
            its predictions or its transformed features. Outputs without a counterpart are left out.
        """
        rows = self.inputs.iloc[indices] if hasattr(self.inputs, "iloc") else np.asarray(self.inputs)[indices]
        if hasattr(self.model, "predict_proba") and len(names) == 2:
            methods = ["predict", "predict_proba"]
        else:
            methods = ["predict" if hasattr(self.model, "predict") else "transform"]
        try:
            found = [getattr(self.model, each)(rows) for each in methods]
        except Exception as error:  # estimators raise anything
            raise StageError(
                f"{type(self.model).__name__}.{methods[0]} fails on the evaluation data: {type(error).__name__}: "
                f"{str(error).rstrip('.')}. Return them as the estimator takes them."
            ) from error
        # With several outputs an estimator gives a list of probabilities, one array for each output.
        return {name: array for name, array in zip(names, found, strict=False) if isinstance(array, np.ndarray)}


def _feedable(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "O":  # a data frame of mixed columns gives numbers as objects
        plain = np.array(array.tolist())
        array = plain if plain.dtype.kind in "iubf" else array
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    return array.astype(np.str_)
