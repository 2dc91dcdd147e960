"""scikit-learn estimators: conversion by skl2onnx, and what the estimator itself answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx

from stages.common.base.errors import StageError
from stages.common.base.params import Export
from stages.common.model import ir_conversion
from stages.export.framework import Converted

NAME = "scikit-learn"


def knows(model: Any) -> bool:
    """Whether `model` is a scikit-learn estimator."""
    from sklearn.base import BaseEstimator

    return isinstance(model, BaseEstimator)


def input_names(_model: Any) -> list[str]:
    """An array of samples has no names."""
    return []


def convert(model: Any, inputs: Any, params: Export) -> Converted:
    """Export an estimator; classifiers without ZipMap, so that probabilities are one array [samples, classes].

    Raises:
        StageError: skl2onnx cannot convert the estimator, or the inputs are not what an estimator takes.
    """
    arrays = onnx_inputs(inputs)
    converted = _to_onnx(model, arrays, params.opset)
    # skl2onnx changes names (no spaces, no slashes) and keeps their order.
    names = [graph_input.name for graph_input in converted.graph.input]
    inputs_by_name = dict(zip(names, arrays.values(), strict=True))
    return Converted(ir_conversion.from_proto(converted), inputs_by_name, Fitted(model, inputs))


def onnx_inputs(inputs: Any) -> dict[str, np.ndarray]:
    """The evaluation inputs as the exported model takes them.

    A two-dimensional array becomes the input `X` [samples, features], a one-dimensional array of texts `X`
    [samples, 1]; a data frame becomes one input [samples, 1] per column, named after it. Floats become float32,
    integers int64, anything else text.

    Raises:
        StageError: anything else, which scikit-learn would refuse too.
    """
    if hasattr(inputs, "columns"):
        return {str(name): _feedable(inputs[name].to_numpy().reshape(-1, 1)) for name in inputs.columns}
    array = np.asarray(inputs)
    if array.ndim == 1 and array.dtype.kind in "OU":  # what text vectorisers take
        array = array.reshape(-1, 1)
    if array.ndim != 2:
        given = f"the shape {list(array.shape)}" if array.ndim else f"the type {type(inputs).__name__}"
        raise StageError(
            f"The evaluation data of a scikit-learn model has {given}. "
            "Return a dense two-dimensional array [samples, features], a one-dimensional array of texts, "
            "or a data frame."
        )
    return {"X": _feedable(array)}


def _to_onnx(model: Any, inputs: dict[str, np.ndarray], opset: int) -> onnx.ModelProto:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn.base import is_classifier

    kinds = {"f": FloatTensorType, "i": Int64TensorType, "U": StringTensorType}
    types = [(name, kinds[array.dtype.kind]([None, array.shape[1]])) for name, array in inputs.items()]
    # Without a name the graph gets a random number for one, and no two exports have the same bytes.
    export = partial(
        to_onnx,
        model,
        initial_types=types,
        target_opset={"": opset, "ai.onnx.ml": 3},
        name=type(model).__name__,
    )
    try:
        if not is_classifier(model):
            return with_sorted_opsets(export())
        try:
            return with_sorted_opsets(export(options={id(model): {"zipmap": False}}))
        except NameError:  # raised for an option that an estimator does not have: LinearSVC never gets a ZipMap
            return with_sorted_opsets(export())
    except Exception as error:  # its converters raise anything
        first = str(error).strip().split("\n")[0].rstrip(".,")
        raise StageError(
            f"skl2onnx cannot export {type(model).__name__}: {type(error).__name__}: {first}. "
            "Export it yourself, and return the ONNX model from export.source."
        ) from error


def with_sorted_opsets(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each domain imported once, in order: skl2onnx imports them in the order of a set's hashes."""
    versions: dict[str, int] = {}
    for opset in model.opset_import:
        versions[opset.domain] = max(opset.version, versions.get(opset.domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, versions[domain]) for domain in sorted(versions))
    return model


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator with its evaluation inputs, as the callable returned them."""

    model: Any
    inputs: Any

    def __call__(self, indices: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """What the estimator answers, by the name of the exported model's output that means the same.

        Args:
            indices: of the samples, int64 [n].
            names: of the exported model's outputs.

        Returns:
            For a classifier its labels [n] and, where it has them, its probabilities [n, classes]; for others the
            predictions or the transformed features. Outputs without a counterpart are missing.
        """
        rows = self.inputs.iloc[indices] if hasattr(self.inputs, "iloc") else np.asarray(self.inputs)[indices]
        if hasattr(self.model, "predict_proba") and len(names) == 2:
            methods = ["predict", "predict_proba"]
        else:
            methods = ["predict" if hasattr(self.model, "predict") else "transform"]
        try:
            answers = [getattr(self.model, method)(rows) for method in methods]
        except Exception as error:  # estimators raise anything
            raise StageError(
                f"{type(self.model).__name__}.{methods[0]} fails on the evaluation data: {type(error).__name__}: "
                f"{str(error).rstrip('.')}. Return the data as the estimator takes it."
            ) from error
        # An estimator with several outputs returns a list of probabilities, one array per output.
        return {name: answer for name, answer in zip(names, answers, strict=False) if isinstance(answer, np.ndarray)}


def _feedable(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "O":  # a data frame with mixed columns gives numbers as objects
        plain = np.array(array.tolist())
        array = plain if plain.dtype.kind in "iubf" else array
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    return array.astype(np.str_)
