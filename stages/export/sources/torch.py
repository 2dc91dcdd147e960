"""PyTorch modules, exported programs and ONNX programs: conversion by the dynamo exporter, and their own answers."""

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.common.base.params import Export
from stages.export.drift import SourceAnswers
from stages.export.framework import (
    Converted,
    Framework,
    as_model,
    defined_in,
    first_line,
    read_by,
    required,
    rounded_by,
    rounding_note,
)

NAME = "PyTorch"

FIRST_OPSET = 18
"""The oldest opset that the dynamo exporter writes."""

BATCH = "batch"
"""The name of axis 0 of the inputs."""

PACKAGES = "torch onnxscript"


def load(path: Path) -> Any:
    """Read an ExportedProgram that torch.export.save wrote."""
    torch = required("torch", f"Loading {path.as_posix()}", PACKAGES)
    return read_by(lambda: torch.export.load(path), path, NAME)


def input_names(model: Any) -> list[str]:
    """The names of the inputs that the model requires."""
    if hasattr(model, "model_proto"):
        return [graph_input.name for graph_input in model.model.graph.inputs]
    if hasattr(model, "graph_signature"):
        return list(model.graph_signature.user_inputs)
    parameters = inspect.signature(model.forward).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is parameter.empty]


def convert(model: Any, inputs: Any, params: Export) -> Converted:
    """Export; in the layout `samples`, axis 0 of every input is a free batch.

    Raises:
        StageError: onnxscript is missing, the inputs are not the model's, or the exporter fails.
    """
    required("onnxscript", "Exporting a PyTorch model", PACKAGES)
    model = getattr(model, "_orig_mod", model)  # the module that torch.compile wraps
    single = _takes_float32(model)
    arrays, rounded = _by_name(model, inputs), {}
    for name, array in arrays.items():
        if single and array.dtype == np.float64:
            arrays[name] = array.astype(np.float32)
            rounded[name] = rounded_by(array, arrays[name])
    notes = rounding_note(rounded, "input")
    with _quiet():
        program = model if hasattr(model, "model_proto") else _export(model, arrays, params, notes)
        exported = _anonymous(as_model(program.model_proto))
    names = [value.name or "" for value in exported.graph.inputs]
    named = dict(zip(names, arrays.values(), strict=True))
    return Converted(exported, named, _answers(model, arrays, params), tuple(notes), exact=True)


def _takes_float32(model: Any) -> bool:
    """Whether the weights of a module are float32.

    Raises:
        StageError: the module is TorchScript, which the exporter refuses, or its weights are bfloat16.
    """
    import torch

    if isinstance(model, torch.jit.ScriptModule):
        raise StageError(f"{type(model).__name__} is TorchScript. Return the original nn.Module.")
    weight = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    if weight is not None and weight.dtype == torch.bfloat16:
        raise StageError(
            f"The weights of {type(model).__name__} are bfloat16, for which ONNX Runtime has no kernels on CPUs. "
            "Return the module in float32: model.float()."
        )
    return weight is not None and weight.dtype == torch.float32


def _by_name(model: Any, inputs: Any) -> dict[str, np.ndarray]:
    names = input_names(model)
    known = names if not hasattr(model, "forward") else list(inspect.signature(model.forward).parameters)
    if not isinstance(inputs, Mapping):
        values = list(inputs) if isinstance(inputs, tuple) else [inputs]
        inputs = dict(zip(known, values, strict=False)) if len(values) <= len(known) else {}
    if missing := [name for name in names if name not in inputs]:
        raise StageError(
            f"The evaluation data has no array for the input '{missing[0]}' of {type(model).__name__}, whose inputs "
            f"are {', '.join(names)}. Give a dict of arrays by input name."
        )
    if extra := [name for name in inputs if name not in known]:
        raise StageError(
            f"The evaluation data holds '{extra[0]}', which is not an input of {type(model).__name__}; its inputs are "
            f"{', '.join(known)}. Remove it, or name it after its input."
        )
    return {name: np.asarray(inputs[name]) for name in known if name in inputs}


def _export(model: Any, arrays: Mapping[str, np.ndarray], params: Export, notes: list[str]) -> Any:
    import torch

    opset = max(params.opset, FIRST_OPSET)
    if opset > params.opset:
        notes.append(f"The PyTorch exporter writes opset {FIRST_OPSET} or later; export.opset is {params.opset}.")
    try:
        if hasattr(model, "graph_signature"):
            return torch.onnx.export(model, dynamo=True, verbose=False, opset_version=opset)
        model.eval()
        if params.eval_layout == "feeds":
            examples, free = {name: torch.from_numpy(np.array(array[0])) for name, array in arrays.items()}, None
        else:  # two samples: the exporter would take an axis of length 1 for a constant
            examples = {
                name: torch.from_numpy(np.resize(array[:2], (2, *array.shape[1:]))) for name, array in arrays.items()
            }
            free = {name: {0: torch.export.Dim.DYNAMIC} for name in arrays}
        return torch.onnx.export(
            model,
            kwargs=examples,
            dynamic_shapes=free,
            input_names=list(arrays),
            dynamo=True,
            verbose=False,
            opset_version=opset,
        )
    except Exception as error:  # the exporter raises anything
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise StageError(
            f"The PyTorch exporter cannot export {type(model).__name__} with a free batch ({first_line(cause)}). "
            "Use x.shape[0] in forward instead of a number, or export the model yourself and return the ONNX model."
        ) from error


def _anonymous(model: ir.Model) -> ir.Model:
    """The model without stack traces, which hold paths of this machine, and with the free axis named batch."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    first = {str(value.shape[0]) for value in model.graph.inputs if value.shape and not isinstance(value.shape[0], int)}
    if len(first) == 1:
        values = [*model.graph.inputs, *(output for node in model.graph.all_nodes() for output in node.outputs)]
        for value in values:
            if value.shape is not None:
                value.shape = ir.Shape([BATCH if str(size) in first else size for size in value.shape])
    return model


def _answers(model: Any, arrays: Mapping[str, np.ndarray], params: Export) -> SourceAnswers | None:
    """The answers of the module itself, whose outputs have the same order as those of the export.

    None for an ONNX program that does not hold the program it was exported from.
    """
    import torch
    from torch.utils import _pytree as pytree

    feeds = params.eval_layout == "feeds"
    module, by_name = model, set(arrays)
    if not hasattr(model, "forward"):
        program = model.exported_program if hasattr(model, "model_proto") else model
        if program is None:
            return None
        module, by_name = program.module(), set((program.example_inputs or ((), {}))[1])

    def answers(indices: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        tensors = {
            name: torch.from_numpy(np.array(array[indices[0]] if feeds else array[indices]))
            for name, array in arrays.items()
        }
        positional = [tensor for name, tensor in tensors.items() if name not in by_name]
        keywords = {name: tensor for name, tensor in tensors.items() if name in by_name}
        with torch.no_grad():
            outputs = [output.numpy() for output in pytree.tree_leaves(module(*positional, **keywords))]
        if feeds:
            outputs = [output[np.newaxis] for output in outputs]
        return dict(zip(names, outputs, strict=False))

    return answers


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns about packages that are not installed."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


FRAMEWORK = Framework(NAME, (".pt2",), defined_in("torch"), load, input_names, convert)
