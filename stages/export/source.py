"""The model of `export.source` as ONNX, with its evaluation data."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.base import paths, pipeline, signals
from stages.common.base.errors import StageError
from stages.common.base.params import Export
from stages.export import checks, eval_files, sources
from stages.export.framework import Converted, Framework

MODELS = Path("models")
"""The folder for models, which is a dependency of export in dvc.yaml."""

_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A source of the form package.module:callable; any other source is a path."""


@dataclass(frozen=True)
class Exported:
    """A model that is not published yet, with its evaluation data.

    Attributes:
        converted: the model as ONNX, and its inputs; axis 0 of each counts samples (or feeds).
        labels: one per sample, or None if unknown.
        origin: what errors call the model.
        framework: the name of the framework that it came from.
    """

    converted: Converted
    labels: np.ndarray | None
    origin: str
    framework: str


@contextmanager
def opened(params: Export) -> Iterator[Exported]:
    """Build or read the model and its evaluation data, and convert both to ONNX.

    Raises:
        StageError: the callable fails, a file cannot be read, no converter knows the model, or its data does not fit.
    """
    if _CALLABLE.fullmatch(params.source):
        if params.eval_data is not None:
            raise StageError(
                f"export.eval_data is {params.eval_data}, but the callable {params.source} returns the evaluation data "
                "itself. Set export.eval_data to null."
            )
        model, inputs, labels = _build(params.source, params.seed)
        if isinstance(model, str | Path):
            model = sources.load(_model_path(str(model)), allow_pickle=params.allow_pickle)
        yield _exported(model, inputs, labels, f"the model of {params.source}", params)
        return
    path = _model_path(params.source)
    model = sources.load(path, allow_pickle=params.allow_pickle)
    names = _framework(model, params).input_names(model)
    if params.eval_data is None:
        raise StageError(
            f"export.source is the file {path.as_posix()}, but export.eval_data is null: nothing can be proved without "
            "real inputs. Name an .npz, a folder of .npy files or a .csv"
            f"{' with ' + ', '.join(names) if names else ''}."
        )
    with eval_files.opened(Path(params.eval_data), names, params.labels, paths.ARTIFACTS) as (inputs, labels):
        yield _exported(model, inputs, labels, path.as_posix(), params)


def untracked(params: Export) -> list[str]:
    """A sentence for each file that export reads but DVC does not track."""
    stage = pipeline.here().get("export")  # without dvc.yaml, the models folder is what it would depend on
    dependencies = [Path(dependency).resolve() for dependency in (stage.deps if stage else (MODELS,))]
    watched = {params.source: params.source, params.eval_data: params.eval_data}
    if _CALLABLE.fullmatch(params.source):
        module = importlib.import_module(params.source.split(":", maxsplit=1)[0])
        watched[params.source] = getattr(module, "__file__", None)
    return [
        f"{name} is not among the deps of export in dvc.yaml, so DVC does not notice when it changes. "
        f"Add it there, or move it into {MODELS}/."
        for name, path in watched.items()
        if path and not any(Path(path).resolve().is_relative_to(dependency) for dependency in dependencies)
    ]


def _framework(model: Any, params: Export) -> Framework:
    framework = sources.framework_of(model)
    if framework is None:
        raise StageError(
            f"export.source {params.source} is a {type(model).__name__}, which no converter supports. "
            f"Use a model of {sources.KNOWN}, or export it yourself and return an onnx.ModelProto."
        )
    return framework


def _exported(model: Any, inputs: Any, labels: np.ndarray | None, origin: str, params: Export) -> Exported:
    framework = _framework(model, params)
    checks.check_rows(inputs)
    return Exported(framework.convert(model, inputs, params), labels, origin, framework.name)


def _model_path(source: str) -> Path:
    path = Path(source)
    if not path.is_file():
        raise StageError(
            f"export.source is {source}, which is not a file. "
            "Name a model file, relative to the repository root, or a callable as package.module:callable."
        )
    return path


def _build(source: str, seed: int) -> tuple[Any, Any, np.ndarray | None]:
    """Import and call package.module:callable, with `seed` if it takes one.

    Returns:
        A model of any framework; the evaluation inputs (an array, a data frame, or a mapping of arrays by input name);
        and the labels, one per sample, or None if unknown.

    Raises:
        StageError: it cannot be imported, fails, or returns something other than a model and evaluation data.
    """
    function = _import(source)
    takes_seed = "seed" in inspect.signature(function).parameters
    try:
        returned = function(seed=seed) if takes_seed else function()
    except ModuleNotFoundError as error:
        raise _not_installed(source, error) from error
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
    return model, inputs, None if labels is None else np.asarray(labels)


def _not_installed(source: str, error: ModuleNotFoundError) -> StageError:
    return StageError(
        f"export.source {source} needs {error.name or error}, which is not installed. Add its package to "
        f"{MODELS.as_posix()}/requirements.txt and run make repro, or install it with pip."
    )


def _import(source: str) -> Callable[..., Any]:
    module_name, name = source.split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _not_installed(source, error) from error
        raise StageError(
            f"export.source is {source}, but Python finds no module named {error.name}. "
            "Put it under models/ and run from the repository root, or install it."
        ) from error
    except (Exception, SystemExit) as error:  # importing runs the user's code
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
