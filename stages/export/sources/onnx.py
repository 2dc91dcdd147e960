"""ONNX models, from a file or a callable: nothing to convert, inputs by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.common.base.params import Export
from stages.common.model import ir_conversion, model_file
from stages.export import eval_files
from stages.export.framework import Converted, Framework


def _knows(model: Any) -> bool:
    return isinstance(model, (onnx.ModelProto, ir.Model))


def load(path: Path) -> ir.Model:
    """Read a model with its weights; raises StageError if the file is not an ONNX model."""
    return model_file.read(path, "your own export")


def input_names(model: ir.Model) -> list[str]:
    """The inputs that have no default among the initializers."""
    return [value.name or "" for value in model.graph.inputs if not value.is_initializer()]


def convert(model: onnx.ModelProto | ir.Model, inputs: Any, params: Export) -> Converted:
    """The model as it is, and its inputs as arrays by name, or as columns of a data frame.

    A bare array belongs to the only input.

    Raises:
        StageError: the model lacks its weights, a bare array is given for several inputs, or samples differ in shape.
    """
    if isinstance(model, onnx.ModelProto):
        if ir_conversion.has_external_data(model):
            raise StageError(
                f"export.source {params.source} returned a model without its weights: they are external data. "
                "Load the model with them (onnx.load does), or return the path of its file."
            )
        model = ir_conversion.from_proto(model)
    names = input_names(model)
    if hasattr(inputs, "columns"):
        arrays, notes = eval_files.as_inputs(inputs, [value for value in model.graph.inputs if value.name in names])
        return Converted(model, arrays, notes=tuple(notes))
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise StageError(
                f"The evaluation data is one array, but the model of {params.source} has the inputs "
                f"{', '.join(names)}. Give one array per input, by its name."
            )
        inputs = {names[0]: inputs}
    return Converted(model, {str(name): _array(str(name), values) for name, values in inputs.items()})


def _array(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise StageError(
            f"The evaluation data for '{name}' is not an array: {str(error).rstrip('.')}. "
            "Give every sample the same shape."
        ) from error


FRAMEWORK = Framework("ONNX", (".onnx",), _knows, load, input_names, convert)
