"""What `export.source` names: a callable that builds a model, or an ONNX file."""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from stages.common.base.errors import StageError

_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

Inputs = Any
"""Evaluation inputs as a callable gives them: one array, a data frame, or a mapping of arrays by input name."""


@dataclass(frozen=True)
class Built:
    """What a callable returned: the model, evaluation inputs and, where known, their labels."""

    model: Any
    inputs: Inputs
    labels: np.ndarray | None


def is_callable(source: str) -> bool:
    """Whether the source has the form package.module:callable; any other is a path."""
    return _CALLABLE.fullmatch(source) is not None


def build(source: str, seed: int) -> Built:
    """Import and call package.module:callable, with `seed` where it takes one.

    Raises:
        StageError: it cannot be imported, fails, or returns something else than a model and evaluation data.
    """
    function = _import(source)
    takes_seed = "seed" in inspect.signature(function).parameters
    try:
        returned = function(seed=seed) if takes_seed else function()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise StageError(
            f"export.source {source} raised {type(error).__name__}: {str(error).rstrip('.')}. "
            "Mend it, or see where with --debug."
        ) from error
    if not isinstance(returned, tuple) or len(returned) not in (2, 3):
        raise StageError(
            f"export.source {source} returned {type(returned).__name__}. "
            "Return (model, inputs) or (model, inputs, labels), inputs being the evaluation data."
        )
    model, inputs, labels = (*returned, None)[:3]
    return Built(model, inputs, None if labels is None else np.asarray(labels))


def _import(source: str) -> Callable[..., Any]:
    module_name, name = source.split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise StageError(
            f"export.source is {source}, but there is no module {error.name}. "
            "Put it under models/ and run from the repository root, or install it."
        ) from error
    except Exception as error:  # importing runs the user's code
        raise StageError(f"export.source {source}: importing it raised {type(error).__name__}: {error}") from error
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        known = [each for each, value in vars(module).items() if inspect.isfunction(value) and not each.startswith("_")]
        raise StageError(
            f"export.source is {source}, but {module_name} has no function {name}; it has {', '.join(known) or 'none'}."
        )
    return function


def is_onnx(model: Any) -> bool:
    """Whether the callable built an ONNX model already."""
    return isinstance(model, onnx.ModelProto)


def is_sklearn(model: Any) -> bool:
    """Whether the callable built a scikit-learn estimator."""
    from sklearn.base import BaseEstimator

    return isinstance(model, BaseEstimator)


def onnx_path(source: str) -> Path:
    """The path of an ONNX file.

    Raises:
        StageError: there is no such file.
    """
    path = Path(source)
    if not path.is_file():
        raise StageError(
            f"export.source is {source}, which is no file here. "
            "Name an .onnx file, from the repository root, or a callable as package.module:callable."
        )
    return path


def by_name(inputs: Inputs, names: list[str]) -> dict[str, np.ndarray]:
    """Evaluation inputs of an ONNX model as arrays by input name; a bare array is the only input's.

    Raises:
        StageError: a bare array for a model with several inputs, or rows of different lengths.
    """
    if isinstance(inputs, Mapping):
        return {str(name): _array(name, values) for name, values in inputs.items()}
    if len(names) != 1:
        raise StageError(
            f"export.source returned one array, but the model has the inputs {', '.join(names)}. Return a dict by name."
        )
    return {names[0]: _array(names[0], inputs)}


def _array(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        words = str(error).rstrip(".")
        raise StageError(
            f"The evaluation data for '{name}' are no array: {words}. Give every sample the same shape."
        ) from error
