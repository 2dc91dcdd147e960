"""Fold BatchNormalization, and Mul and Add with a constant per channel, into the Conv before them.

ONNX Runtime does so at load for a float Conv, but not for an INT8 one, where each costs a conversion to float and back.
BatchNormalization is y = scale (x - mean) / sqrt(variance + epsilon) + shift.
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.walk import add_initializer, constant, input_of, name_of, number, only_reader, remove_unused


def apply(model: ir.Model, names: Collection[str]) -> PassResult:
    """Fold into the Conv nodes with these names in the main graph."""
    fresh = Names(model)
    modified = False
    for node in list(model.graph):
        weight = constant(input_of(node, 1)) if node.op_type == "Conv" and node.name in names else None
        bias = constant(input_of(node, 2))
        if weight is None or weight.dtype != ir.DataType.FLOAT or (bias is None and input_of(node, 2) is not None):
            continue
        filters, rank = int(weight.shape.numpy()[0]), weight.shape.rank()
        factor = np.ones(filters, np.float32)
        shift = bias.numpy().reshape(-1) if bias is not None else np.zeros(filters, np.float32)
        last = node.outputs[0]
        while (reader := only_reader(last)) is not None:
            folded = _scale_and_shift(reader, last, rank, filters)
            if folded is None:
                break
            factor, shift = factor * folded[0], shift * folded[0] + folded[1]
            last = reader.outputs[0]
        if last is node.outputs[0]:
            continue
        name, weight_name = name_of(last), name_of(node.inputs[1])
        values = weight.numpy() * factor.reshape(-1, *(1,) * (rank - 1))
        constants = [
            add_initializer(model.graph, fresh.fresh(f"{weight_name}_{suffix}"), array.astype(np.float32))
            for suffix, array in (("scaled", values), ("shift", shift))
        ]
        node.resize_inputs(3)
        for index, value in enumerate(constants, start=1):
            node.replace_input_with(index, value)
        ir.convenience.replace_all_uses_with(last, node.outputs[0], replace_graph_outputs=True)
        last.name, node.outputs[0].name = fresh.fresh(f"{name}_folded"), name
        modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)


def _scale_and_shift(node: ir.Node, value: ir.Value, rank: int, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The factor and shift that `node` applies to each channel of `value`, [channels] each; None for other nodes."""
    others = [constant(operand) for operand in node.inputs if operand is not value]
    tensors = [tensor for tensor in others if tensor is not None and tensor.dtype == ir.DataType.FLOAT]
    if len(tensors) != len(node.inputs) - 1:
        return None
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if node.op_type == "BatchNormalization":
        if node.inputs[0] is not value or len(node.outputs) > 1 or number(node, "training_mode", 0):
            return None
        scale, shift, mean, variance = (tensor.numpy().astype(np.float64) for tensor in tensors)
        factor = scale / np.sqrt(variance + number(node, "epsilon", 1e-5))
        return factor, shift - mean * factor
    if node.op_type not in ("Add", "Mul"):
        return None
    values, per_channel = tensors[0].numpy(), (channels, *(1,) * (rank - 2))
    scalar = values.size == 1 and values.ndim <= rank
    if not scalar and values.shape not in (per_channel, (1, *per_channel)):
        return None
    spread = np.broadcast_to(values.reshape(-1), channels)
    return (spread, zeros) if node.op_type == "Mul" else (ones, spread)
