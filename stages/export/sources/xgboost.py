"""XGBoost estimators, boosters and model files: conversion by onnxmltools, and the answers of the model itself."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.base.params import Export
from stages.export.framework import Converted, belongs_to, read_by, required
from stages.export.sources import trees

NAME = "XGBoost"
SUFFIXES: tuple[str, ...] = (".ubj", ".json", ".xgb")


def knows(model: Any) -> bool:
    """Whether `model` is an XGBoost estimator or booster."""
    return belongs_to(model, "xgboost")


def load(path: Path) -> Any:
    """Read a booster that `save_model` wrote."""
    xgboost = required("xgboost", f"Loading {path.as_posix()}", "xgboost onnxmltools")
    return read_by(lambda: xgboost.Booster(model_file=path), path, NAME)


def input_names(model: Any) -> Sequence[str]:
    """The columns that the model was trained on, if known."""
    return list(_booster(model).feature_names or [])


def convert(model: Any, inputs: Any, params: Export) -> Converted:
    """Export by onnxmltools; missing values stay NaN, which XGBoost models take.

    Raises:
        StageError: onnxmltools is missing, or cannot convert this model.
    """
    onnxmltools = required("onnxmltools", "Exporting an XGBoost model", "xgboost onnxmltools")
    features = trees.features(inputs, input_names(model), NAME)
    nameless = copy.deepcopy(model)  # the converter takes no column names
    booster = _booster(nameless)
    booster.feature_names = booster.feature_types = None
    converted = trees.converted(onnxmltools.convert_xgboost, nameless, features.array, NAME, params.opset)
    answers = trees.answers(model, features.given, _predict)
    return Converted(converted, {trees.INPUT: features.array}, answers, features.notes, exact=True)


def _booster(model: Any) -> Any:
    return model.get_booster() if hasattr(model, "get_booster") else model


def _predict(booster: Any, rows: Any) -> np.ndarray:
    from xgboost import DMatrix

    return np.asarray(booster.predict(DMatrix(rows)))
