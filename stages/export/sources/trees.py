"""What the converters of boosted trees share: one float32 input, and how raw predictions map to the ONNX outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.export import tables
from stages.export.drift import SourceAnswers
from stages.export.framework import as_model, first_line, only_array, rounded_by, rounding_note
from stages.export.sources import sklearn

INPUT = "X"

OPSET = 15
"""The newest opset that onnxmltools writes trees in."""


@dataclass(frozen=True)
class Features:
    """Evaluation inputs of a model of trees.

    Attributes:
        array: as the ONNX model takes them, float32 [samples, features].
        given: as the model itself takes them: an array, or a data frame of the model's columns.
        notes: sentences on the cast.
    """

    array: np.ndarray
    given: Any
    notes: tuple[str, ...]


def features(inputs: Any, columns: Sequence[str], framework: str) -> Features:
    """Take evaluation inputs for a model of trees.

    Args:
        inputs: a two-dimensional array, or a data frame.
        columns: of a data frame, in order; empty for all.
        framework: to name in an error.

    Raises:
        StageError: the inputs are something else, a column is missing, or its values are not numbers.
    """
    inputs = only_array(inputs, framework)
    if hasattr(inputs, "columns"):
        inputs = given = tables.select(inputs, columns or list(inputs.columns))
        if text := [str(name) for name in inputs.columns if inputs[name].dtype.kind not in "iufb"]:
            raise StageError(
                f"The column '{text[0]}' of the evaluation data is {inputs[text[0]].dtype}, and the export of "
                f"{framework} models takes numbers. Encode it as you did for the training."
            )
        array = inputs.to_numpy(dtype=np.float64)
    else:
        array = given = np.asarray(inputs)
    if array.ndim != 2 or array.dtype.kind not in "iufb":
        raise StageError(
            f"The evaluation data of a model of {framework} has the shape {list(array.shape)} and dtype {array.dtype}. "
            "Give numbers [samples, features], or a data frame."
        )
    cast = array.astype(np.float32)
    return Features(cast, given, tuple(rounding_note({"": rounded_by(array, cast)})))


def converted(
    converter: Callable[..., onnx.ModelProto], model: Any, array: np.ndarray, framework: str, opset: int
) -> ir.Model:
    """Convert a model of trees.

    Raises:
        StageError: the converter does not take it.
    """
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [(INPUT, FloatTensorType([None, array.shape[1]]))]
    try:
        # Without a name the graph gets a random one.
        return as_model(converter(model, name=framework, initial_types=types, target_opset=OPSET), opset)
    except Exception as error:  # converters raise anything
        raise StageError(
            f"onnxmltools cannot export this {type(model).__name__} of {framework} ({first_line(error)}). "
            "Export it yourself, and name the .onnx file as export.source."
        ) from error


def answers(model: Any, given: Any, predict: Callable[[Any, Any], np.ndarray]) -> SourceAnswers:
    """What a model of trees answers itself.

    Args:
        model: an estimator with scikit-learn's interface, or a booster.
        given: evaluation inputs as the model takes them: an array, or a data frame.
        predict: of a booster: takes it and rows of `given`.
    """
    if hasattr(model, "get_params"):
        return sklearn.Fitted(model, given)
    return lambda indices, names: booster_answers(predict(model, sklearn.rows(given, indices)), names)


def booster_answers(predicted: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What a booster predicts, by output name.

    Args:
        predicted: probabilities of class 1 [n], of all classes [n, classes], class numbers [n], or values [n].
        names: of the ONNX outputs: a label and probabilities for a classifier, else one output.
    """
    if len(names) == 1:
        return {names[0]: predicted}
    label, probabilities = names
    if predicted.ndim == 2:
        return {label: predicted.argmax(axis=1), probabilities: predicted}
    if np.all(predicted == np.round(predicted)):
        return {label: predicted.astype(np.int64)}
    return {label: (predicted > 0.5).astype(np.int64), probabilities: np.stack([1 - predicted, predicted], axis=1)}
