"""What the converters of boosted trees share: one float32 input, and the mapping of raw predictions to ONNX outputs."""

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
    """Evaluation inputs of a tree model.

    Attributes:
        array: for the ONNX model, float32 [samples, features].
        given: for the model itself: an array, or a data frame of the model's columns.
        notes: sentences on the cast.
    """

    array: np.ndarray
    given: Any
    notes: tuple[str, ...]


def features(inputs: Any, columns: Sequence[str], framework: str) -> Features:
    """Prepare a two-dimensional array, or these columns (all if empty) of a data frame, for a tree model.

    Raises:
        StageError: the inputs are something else, a column is missing, or its values are not numbers.
    """
    inputs = only_array(inputs, framework)
    if hasattr(inputs, "columns"):
        inputs = given = tables.select(inputs, columns or list(inputs.columns))
        if text := [str(name) for name in inputs.columns if inputs[name].dtype.kind not in "iufb"]:
            raise StageError(
                f"The column '{text[0]}' of the evaluation data is {inputs[text[0]].dtype}, but the export of "
                f"{framework} models takes numbers. Encode it as in training."
            )
        array = inputs.to_numpy(dtype=np.float64)
    else:
        array = given = np.asarray(inputs)
    if array.ndim != 2 or array.dtype.kind not in "iufb":
        raise StageError(
            f"The evaluation data of a {framework} model has the shape {list(array.shape)} and dtype {array.dtype}. "
            "Give numbers [samples, features], or a data frame."
        )
    cast = array.astype(np.float32)
    return Features(cast, given, tuple(rounding_note({"": rounded_by(array, cast)})))


def converted(
    converter: Callable[..., onnx.ModelProto], model: Any, array: np.ndarray, framework: str, opset: int
) -> ir.Model:
    """Convert a tree model.

    Raises:
        StageError: the converter fails.
    """
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [(INPUT, FloatTensorType([None, array.shape[1]]))]
    try:
        # Without a name the graph gets a random one.
        return as_model(converter(model, name=framework, initial_types=types, target_opset=OPSET), opset)
    except Exception as error:  # converters raise anything
        raise StageError(
            f"onnxmltools cannot export this {framework} {type(model).__name__} ({first_line(error)}). "
            "Export it yourself, and set export.source to the .onnx file."
        ) from error


def answers(model: Any, given: Any, predict: Callable[[Any, Any], np.ndarray]) -> SourceAnswers:
    """The answers of a tree model: an estimator with scikit-learn's interface, or a booster, which takes `predict`."""
    if hasattr(model, "get_params"):
        return sklearn.Fitted(model, given)
    return lambda indices, names: booster_answers(predict(model, sklearn.rows(given, indices)), names)


def booster_answers(predicted: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The predictions of a booster, by the names of the ONNX outputs: label and probabilities of a classifier, or one.

    `predicted` holds probabilities of class 1 [n], of all classes [n, classes], class numbers [n], or values [n].
    """
    if len(names) == 1:
        return {names[0]: predicted}
    label, probabilities = names
    if predicted.ndim == 2:
        return {label: predicted.argmax(axis=1), probabilities: predicted}
    if np.all(predicted == np.round(predicted)):
        return {label: predicted.astype(np.int64)}
    return {label: (predicted > 0.5).astype(np.int64), probabilities: np.stack([1 - predicted, predicted], axis=1)}
