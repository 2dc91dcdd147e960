"""The interface of a framework: which models it knows, and how they become ONNX."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.common.base.params import Export
from stages.common.model import ir_conversion
from stages.export.drift import SourceAnswers

DEFAULT_OPSET = 17


@dataclass(frozen=True)
class Converted:
    """A model as ONNX, and its evaluation inputs as the ONNX model takes them.

    Attributes:
        model: the fp32 ONNX model.
        inputs: arrays by input name.
        answers: what the source framework answers to the same samples; None if the source was ONNX already.
        notes: sentences on what was cast or left out.
        exact: whether a correct conversion gives the same answers, up to rounding. A conversion of trees behind a
            scaler, or of isotonic calibration, may be correct although answers differ.
    """

    model: ir.Model
    inputs: Mapping[str, np.ndarray]
    answers: SourceAnswers | None = None
    notes: tuple[str, ...] = ()
    exact: bool = False


@dataclass(frozen=True)
class Framework:
    """Which models a framework knows, and how they become ONNX.

    Attributes:
        name: what messages call the framework.
        suffixes: suffixes of the model files that `load` reads.
        knows: says whether a model belongs to this framework.
        load: reads a model file; raises StageError if it is damaged, or not a model of this framework.
        input_names: gives the names of the inputs that the evaluation data must hold; empty if the model has no names.
        convert: converts a model and its evaluation inputs: a mapping of arrays by name, an array, or a data frame.
            Raises StageError if the converter does not take the model, or the model does not take the inputs.
    """

    name: str
    suffixes: tuple[str, ...]
    knows: Callable[[Any], bool]
    load: Callable[[Path], Any]
    input_names: Callable[[Any], Sequence[str]]
    convert: Callable[[Any, Any, Export], Converted]


def defined_in(package: str) -> Callable[[Any], bool]:
    """Whether the class of a model, or a base class, is defined in `package`, which is not imported."""
    return lambda model: any(kind.__module__.partition(".")[0] == package for kind in type(model).__mro__)


def required(module: str, purpose: str, packages: str) -> ModuleType:
    """Import a module that only some sources need.

    Args:
        module: its dotted name.
        purpose: what needs it: the subject of the error.
        packages: what to install with pip.

    Raises:
        StageError: a package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise StageError(
            f"{purpose} needs the package {error.name}, which is not installed. Install it: pip install {packages}"
        ) from error


def only_array(inputs: Any, framework: str) -> Any:
    """The only array of a mapping; anything else as it is.

    Raises:
        StageError: a mapping of several arrays, for a model that takes one.
    """
    if not isinstance(inputs, Mapping):
        return inputs
    if len(inputs) > 1:
        raise StageError(
            f"The evaluation data holds the arrays {', '.join(map(repr, map(str, inputs)))}, but a {framework} model "
            "takes one array [samples, features] or a table. Save one, and the labels under the name of export.labels."
        )
    return next(iter(inputs.values()))


def first_line(error: Exception) -> str:
    """An error in one line: its class and the beginning of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0].rstrip('.,')[:300]}"


def read_by(loader: Callable[[], Any], path: Path, framework: str) -> Any:
    """Call a framework's own reader of model files.

    Raises:
        StageError: it fails, whatever it raises.
    """
    try:
        return loader()
    except Exception as error:  # readers raise anything
        raise StageError(
            f"{path.as_posix()} is not a model that {framework} can read ({first_line(error)}). Save the model again."
        ) from error


def as_model(model: onnx.ModelProto, opset: int = DEFAULT_OPSET) -> ir.Model:
    """The converted model, with each domain imported once, in order, including the default domain.

    skl2onnx imports domains in hash order, some of them twice; onnxmltools omits the default domain.
    """
    converted = ir_conversion.from_proto(model)
    versions = {"": opset} | dict(converted.opset_imports)
    converted.opset_imports.clear()
    converted.opset_imports.update(sorted(versions.items()))
    return converted


def rounded_by(given: np.ndarray, cast: np.ndarray) -> float:
    """The largest relative change by a cast of floats to float32; 0 if every value is kept."""
    if given.dtype.kind != "f" or given.dtype.itemsize <= 4:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.abs(cast.astype(np.float64) - given) / np.abs(given)
    return float(np.nanmax(np.where(np.isfinite(relative), relative, 0), initial=0))


def rounding_note(rounded: Mapping[str, float], kind: str = "column") -> list[str]:
    """A note on the columns (or inputs) that a cast to float32 rounded; none if it kept every value.

    `rounded` has the largest relative change by name; an empty name stands for all data.
    """
    changed = [name for name, by in rounded.items() if by]
    if not changed:
        return []
    verbs = ("are", "were") if len(changed) > 1 else ("is", "was")
    return [
        f"{listed(changed, kind)} {verbs[0]} float64 and {verbs[1]} rounded to float32, by up to "
        f"{max(rounded.values()):.1g} of a value: the export takes float32."
    ]


def listed(names: Sequence[str], kind: str = "column") -> str:
    """Columns or inputs as the subject of a sentence; an empty name stands for all data."""
    if len(names) > 1:
        return f"{len(names)} {kind}s ('{names[0]}' to '{names[-1]}')"
    return f"The {kind} '{names[0]}'" if names[0] else "The evaluation data"
