"""Making scikit-learn estimators convertible: what skl2onnx refuses, in another form with the same predictions."""

import copy
import importlib
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import onnx


def convertible(model: Any, missing_text: str) -> Any:
    """A copy of a fitted estimator that skl2onnx takes, with the same predictions.

    A search becomes its best estimator; a soft vote loses an option of its `transform`; imputers of text look for
    `missing_text` instead of None or NaN; categories that are booleans become the integers that booleans are in ONNX.
    """
    model = copy.deepcopy(model)
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    for part in parts(model):
        if hasattr(part, "flatten_transform"):
            part.flatten_transform = False
        if type(part).__name__ == "SimpleImputer" and _imputes_text(part):
            part.missing_values = missing_text
            part.statistics_ = np.array([str(_integer(value)) for value in part.statistics_], dtype=object)
        if hasattr(part, "categories_"):
            part.categories_ = [
                np.array([_integer(value) for value in kinds], kinds.dtype if kinds.dtype.kind != "b" else np.int64)
                for kinds in part.categories_
            ]
    return model


def is_fitted(model: Any) -> bool:
    """Whether an estimator was trained, as scikit-learn sees it."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    return True


def joining(model: Any, columns: Sequence[str]) -> Any:
    """An estimator that first joins numeric columns into one array, unless it selects columns itself.

    Only the converter of ColumnTransformer handles several inputs correctly: most others refuse them, and some cast all
    to the type of the first, so that floats after an integer would lose their decimals.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    if any(isinstance(part, ColumnTransformer) for part in parts(model)):
        return model
    join = ColumnTransformer([("columns", "passthrough", list(range(len(columns))))]).fit(np.zeros((1, len(columns))))
    return Pipeline([("join", join), *(model.steps if isinstance(model, Pipeline) else [("model", model)])])


def parts(model: Any) -> Iterator[Any]:
    """An estimator and every estimator in its attributes, at any depth."""
    seen: set[int] = set()

    def walk(value: Any) -> Iterator[Any]:
        if id(value) in seen:
            return
        seen.add(id(value))
        if hasattr(value, "get_params") and not isinstance(value, type):
            yield value
            for attribute in vars(value).values():
                yield from walk(attribute)
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from walk(item)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from walk(item)

    yield from walk(model)


def _integer(value: Any) -> Any:
    """A boolean as an integer, as in ONNX; anything else as it is."""
    return int(value) if isinstance(value, bool | np.bool_) else value


def _imputes_text(imputer: Any) -> bool:
    statistics = getattr(imputer, "statistics_", np.empty(0))
    missing = imputer.missing_values
    return statistics.dtype.kind == "O" and (missing is None or missing != missing)  # noqa: PLR0124 (NaN, of any type)


def make_node(op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    """`onnx.helper.make_node`, with booleans in attribute lists as integers."""
    plain = {
        name: list(map(_integer, value)) if isinstance(value, list) else value for name, value in attributes.items()
    }
    return onnx.helper.make_node(op_type, inputs, outputs, **plain)


def register_boosted_trees(loaded: Set[str]) -> None:
    """Teach skl2onnx the estimators of XGBoost and LightGBM, for pipelines that contain them.

    `loaded` holds the names of loaded packages: only estimators of those can be in a pipeline.
    """
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes

    classifier_shapes = shapes.calculate_linear_classifier_output_shapes
    regressor_shapes = shapes.calculate_linear_regressor_output_shapes
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    for package, prefix, operator in (("xgboost", "XGB", "XGBoost"), ("lightgbm", "LGBM", "LightGbm")):
        if package in loaded:
            library = importlib.import_module(package)
            converters = importlib.import_module(f"onnxmltools.convert.{package}.operator_converters.{operator}")
            convert = getattr(converters, f"convert_{package}")
            classifier, regressor = f"{prefix}Classifier", f"{prefix}Regressor"
            update_registered_converter(
                getattr(library, classifier), classifier, classifier_shapes, convert, options=options
            )
            update_registered_converter(getattr(library, regressor), regressor, regressor_shapes, convert)
