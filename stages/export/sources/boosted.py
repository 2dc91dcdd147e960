"""XGBoost and LightGBM: estimators, boosters and model files, converted by onnxmltools; one float32 input.

Missing values stay NaN, which these models take.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
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
    only_array,
    read_by,
    required,
    rounded_by,
    rounding_note,
)
from stages.export.sources import estimators, sklearn

INPUT = "X"

OPSET = 15
"""The newest opset that onnxmltools writes trees in."""


def _load(package: str, name: str, path: Path) -> Any:
    """Read a booster that `save_model` wrote."""
    library = required(package, f"Loading {path.as_posix()}", f"{package} onnxmltools")
    return read_by(lambda: library.Booster(model_file=path), path, name)


def _xgboost_columns(model: Any) -> Sequence[str]:
    """The columns that the model was trained on; empty if unknown."""
    return list(_xgboost_booster(model).feature_names or [])


def _lightgbm_columns(model: Any) -> Sequence[str]:
    names: list[str] = getattr(model, "booster_", model).feature_name()
    return [] if names == [f"Column_{number}" for number in range(len(names))] else names


def _convert_xgboost(model: Any, inputs: Any, params: Export) -> Converted:
    from xgboost import DMatrix

    onnxmltools = required("onnxmltools", "Exporting an XGBoost model", "xgboost onnxmltools")
    _require_fitted(model)
    array, given, notes = _features(inputs, _xgboost_columns(model), "XGBoost")
    nameless = copy.deepcopy(model)  # the converter takes no column names
    booster = _xgboost_booster(nameless)
    booster.feature_names = booster.feature_types = None
    converted = _converted(onnxmltools.convert_xgboost, nameless, array, "XGBoost", params.opset)
    answers = _answers(model, given, lambda rows: model.predict(DMatrix(rows)))
    return Converted(converted, {INPUT: array}, answers, notes, exact=True)


def _convert_lightgbm(model: Any, inputs: Any, params: Export) -> Converted:
    onnxmltools = required("onnxmltools", "Exporting a LightGBM model", "lightgbm onnxmltools")
    _require_fitted(model)
    array, given, notes = _features(inputs, _lightgbm_columns(model), "LightGBM")
    plain = copy.copy(model)
    if getattr(model, "classes_", np.empty(0)).dtype.kind == "b":  # the converter takes numbers and text
        plain._classes = model.classes_.astype(np.int64)
    if not notes:  # the rows are float32: none was rounded
        if hasattr(model, "booster_"):
            plain._Booster = _rounded_down(model.booster_)
        else:
            plain = _rounded_down(model)
    converter = partial(onnxmltools.convert_lightgbm, zipmap=False)
    converted = _converted(converter, plain, array, "LightGBM", params.opset)
    for output in converted.graph.outputs:  # the converter declares one label, whatever the batch
        if output.shape is not None and output.shape.rank() and output.shape[0] == 1:
            output.shape = ir.Shape([None, *output.shape[1:]])
    return Converted(converted, {INPUT: array}, _answers(model, given, model.predict), notes, exact=True)


def _require_fitted(model: Any) -> None:
    if hasattr(model, "fit") and not estimators.is_fitted(model):
        raise StageError(f"export.source returns {type(model).__name__}, which is not fitted. Fit it first.")


def _rounded_down(booster: Any) -> Any:
    """A LightGBM booster with its thresholds rounded down to float32: it gives the same answers for all float32 rows.

    For a float32 x, x <= t if and only if x is at most the largest float32 that does not exceed t. The converter rounds
    to the nearest float32, which may be a row above t.
    """
    from lightgbm import Booster

    def rounded(line: str) -> str:
        key, _, values = line.partition("=")
        if key != "threshold":
            return line
        exact = np.array(values.split(), dtype=np.float64)
        with np.errstate(over="ignore"):
            nearest = exact.astype(np.float32)
        down = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
        return f"threshold={' '.join(f'{value:.17g}' for value in down.tolist())}"

    lines = booster.model_to_string().split("\n")
    # `tree_sizes`, the length of each tree in text, is optional, and no longer right.
    return Booster(model_str="\n".join(rounded(line) for line in lines if not line.startswith("tree_sizes=")))


def _xgboost_booster(model: Any) -> Any:
    return model.get_booster() if hasattr(model, "get_booster") else model


def _features(inputs: Any, columns: Sequence[str], name: str) -> tuple[np.ndarray, Any, tuple[str, ...]]:
    """Prepare a two-dimensional array, or these columns (all if empty) of a data frame.

    Returns:
        The features for the ONNX model, float32 [samples, features]; the features for the model itself, an array or a
        data frame; and notes on the cast.

    Raises:
        StageError: the inputs are something else, a column is missing, or its values are not numbers.
    """
    inputs = only_array(inputs, name)
    if hasattr(inputs, "columns"):
        # Both libraries spell names as text, and LightGBM has "_" for white space.
        spelled = {spelling: column for column in inputs.columns for spelling in (_underscored(column), str(column))}
        wanted = [spelled.get(column, column) for column in columns] or list(inputs.columns)
        inputs = given = eval_files.select(inputs, wanted)
        if text := [str(column) for column in inputs.columns if inputs[column].dtype.kind not in "iufb"]:
            raise StageError(
                f"The column '{text[0]}' of the evaluation data is {inputs[text[0]].dtype}, but the export of "
                f"{name} models takes numbers. Encode it as in training."
            )
        array = inputs.to_numpy(dtype=np.float64)
    else:
        array = given = np.asarray(inputs)
    if array.ndim != 2 or array.dtype.kind not in "iufb":
        raise StageError(
            f"The evaluation data of a {name} model has the shape {list(array.shape)} and dtype {array.dtype}. "
            "Give numbers [samples, features], or a data frame."
        )
    cast = array.astype(np.float32)
    return cast, given, tuple(rounding_note({"": rounded_by(array, cast)}))


def _underscored(column: Any) -> str:
    return "_".join(str(column).split())


def _converted(
    converter: Callable[..., onnx.ModelProto], model: Any, array: np.ndarray, name: str, opset: int
) -> ir.Model:
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [(INPUT, FloatTensorType([None, array.shape[1]]))]
    try:
        # Without a name the graph gets a random one.
        return as_model(converter(model, name=name, initial_types=types, target_opset=OPSET), opset)
    except Exception as error:  # converters raise anything
        raise StageError(
            f"onnxmltools cannot export this {name} {type(model).__name__} ({first_line(error)}). "
            "Export it yourself, and set export.source to the .onnx file."
        ) from error


def _answers(model: Any, given: Any, predict: Callable[[Any], Any]) -> SourceAnswers:
    """The answers of an estimator with scikit-learn's interface, or of a booster, by its function `predict`."""
    if hasattr(model, "get_params"):
        return sklearn.fitted_answers(model, given)
    return lambda indices, names: _by_name(np.asarray(predict(sklearn.rows(given, indices))), names)


def _by_name(predicted: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The predictions of a booster by the names of the ONNX outputs: label and probabilities, or a single output.

    `predicted` holds the probability of class 1 [n], those of all classes [n, classes], class numbers [n], or values
    [n].
    """
    if len(names) == 1:
        return {names[0]: predicted}
    label, probabilities = names
    if predicted.ndim == 2:
        return {label: predicted.argmax(axis=1), probabilities: predicted}
    if np.all(predicted == np.round(predicted)):
        return {label: predicted.astype(np.int64)}
    return {label: (predicted > 0.5).astype(np.int64), probabilities: np.stack([1 - predicted, predicted], axis=1)}


XGBOOST = Framework(
    "XGBoost",
    (".ubj", ".json", ".xgb"),
    defined_in("xgboost"),
    partial(_load, "xgboost", "XGBoost"),
    _xgboost_columns,
    _convert_xgboost,
)
LIGHTGBM = Framework(
    "LightGBM",
    (".txt", ".lgb"),
    defined_in("lightgbm"),
    partial(_load, "lightgbm", "LightGBM"),
    _lightgbm_columns,
    _convert_lightgbm,
)
