"""LightGBM estimators, boosters and model files: conversion by onnxmltools, and the answers of the model itself."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from stages.common.base.params import Export
from stages.export.framework import Converted, belongs_to, read_by, required
from stages.export.sources import trees

NAME = "LightGBM"
SUFFIXES: tuple[str, ...] = (".txt", ".lgb")


def knows(model: Any) -> bool:
    """Whether `model` is a LightGBM estimator or booster."""
    return belongs_to(model, "lightgbm")


def load(path: Path) -> Any:
    """Read a booster that `save_model` wrote."""
    lightgbm = required("lightgbm", f"Loading {path.as_posix()}", "lightgbm onnxmltools")
    return read_by(lambda: lightgbm.Booster(model_file=path), path, NAME)


def input_names(model: Any) -> Sequence[str]:
    """The columns that the model was trained on, if known."""
    booster = getattr(model, "booster_", model)
    names: list[str] = booster.feature_name()
    return [] if names == [f"Column_{number}" for number in range(len(names))] else names


def convert(model: Any, inputs: Any, params: Export) -> Converted:
    """Export by onnxmltools; missing values stay NaN, which LightGBM models take.

    Raises:
        StageError: onnxmltools is missing, or cannot convert this model.
    """
    onnxmltools = required("onnxmltools", "Exporting a LightGBM model", "lightgbm onnxmltools")
    features = trees.features(inputs, input_names(model), NAME)
    plain = model
    if getattr(model, "classes_", np.empty(0)).dtype.kind == "b":  # the converter takes numbers and text
        plain = copy.copy(model)
        plain._classes = model.classes_.astype(np.int64)
    converted = trees.converted(
        partial(onnxmltools.convert_lightgbm, zipmap=False), plain, features.array, NAME, params.opset
    )
    for output in converted.graph.outputs:  # the converter declares one label, whatever the batch
        if output.shape is not None and output.shape.rank() and output.shape[0] == 1:
            output.shape = ir.Shape([None, *output.shape[1:]])
    answers = trees.answers(model, features.given, _predict)
    return Converted(converted, {trees.INPUT: features.array}, answers, features.notes, exact=True)


def _predict(booster: Any, rows: Any) -> np.ndarray:
    return np.asarray(booster.predict(rows))
