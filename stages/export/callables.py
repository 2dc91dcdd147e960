"""`export.source` as package.module:callable: import and call it, and check what it returns."""

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.common.base import signals
from stages.common.base.errors import StageError

_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Built:
    """What a callable returned.

    Attributes:
        model: of any framework.
        inputs: evaluation inputs: an array, a data frame, or a mapping of arrays by input name.
        labels: one per sample, or None if unknown.
    """

    model: Any
    inputs: Any
    labels: np.ndarray | None


def is_callable(source: str) -> bool:
    """Whether the source has the form package.module:callable; else it is a path."""
    return _CALLABLE.fullmatch(source) is not None


def file_of(source: str) -> str:
    """The file of a callable's module; empty if it has none."""
    return getattr(importlib.import_module(source.split(":", maxsplit=1)[0]), "__file__", None) or ""


def build(source: str, seed: int) -> Built:
    """Import and call package.module:callable, with `seed` if it takes one.

    Raises:
        StageError: it cannot be imported, fails, or returns something other than a model and evaluation data.
    """
    function = _import(source)
    takes_seed = "seed" in inspect.signature(function).parameters
    try:
        returned = function(seed=seed) if takes_seed else function()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise StageError(
            f"export.source {source} raised {type(error).__name__}: {str(error).rstrip('.')}. "
            "Fix it; --debug shows the traceback."
        ) from error
    signals.raise_if_stopped()  # scikit-learn's MLPs catch KeyboardInterrupt, and return a half-trained model
    if not isinstance(returned, tuple) or len(returned) not in (2, 3):
        raise StageError(
            f"export.source {source} returned {type(returned).__name__}. "
            "Return (model, inputs) or (model, inputs, labels), where inputs is the evaluation data."
        )
    model, inputs, labels = (*returned, None)[:3]
    return Built(model, inputs, None if labels is None else np.asarray(labels))


def _import(source: str) -> Callable[..., Any]:
    module_name, name = source.split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise StageError(
            f"export.source is {source}, but Python finds no module named {error.name}. "
            "Put it under models/ and run from the repository root, or install it."
        ) from error
    except Exception as error:  # importing runs the user's code
        raise StageError(
            f"Importing export.source {source} raised {type(error).__name__}: {str(error).rstrip('.')}. Fix it."
        ) from error
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        known = [
            other for other, value in vars(module).items() if inspect.isfunction(value) and not other.startswith("_")
        ]
        raise StageError(
            f"export.source is {source}, but {module_name} has no function {name}; it has {', '.join(known) or 'none'}."
        )
    return function
