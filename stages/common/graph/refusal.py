"""Refuse models that must not be quantized, with the reason."""

import numpy as np
import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.common.graph.walk import all_nodes, constant, input_of, is_quantized
from stages.common.graph.weights import WEIGHT_INPUTS, known_as

_TRAINED = WEIGHT_INPUTS.keys() - {"Gather"}


def refuse(model: ir.Model, name: str) -> None:
    """Refuse a model that is quantized already.

    Raises:
        StageError: the model is quantized already; the message calls it `name`.
    """
    for node in all_nodes(model):
        if is_quantized(node.op_type):
            raise StageError(
                f"{name} is quantized already: it has {_place(node)}. Set export.source to the original float model."
            )


def refuse_non_finite_weights(model: ir.Model, name: str) -> None:
    """Refuse a model with NaN or infinity in a trained weight.

    Tables of Gather and constants of other operators may hold infinity on purpose, as attention masks do.

    Raises:
        StageError: a trained weight is not finite; the message names the tensor and the node.
    """
    for node in all_nodes(model):
        indices = WEIGHT_INPUTS[known_as(node)] if known_as(node) in _TRAINED else ()
        for index in indices:
            tensor = constant(input_of(node, index))
            if tensor is None or not tensor.dtype.is_floating_point():
                continue
            values = tensor.numpy()
            bad = int(values.size - np.count_nonzero(np.isfinite(values)))
            if bad:
                kind = "NaN" if np.isnan(values).any() else "infinity"
                raise StageError(
                    f"{name}: the weight {tensor.name!r} of {_place(node)} has {kind} in {bad} of {values.size} "
                    "values. Training diverged, or the export is damaged: fix the model."
                )


def _place(node: ir.Node) -> str:
    return f"the {node.op_type} node {node.name!r}" if node.name else f"an unnamed {node.op_type} node"
