"""The size of what static quantization adds to a node: QuantizeLinear, DequantizeLinear, scales and zero points."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from stages.common.graph.shapes import inferred
from stages.common.graph.walk import all_nodes, constant, input_of, name_of, only_reader
from stages.common.graph.weights import WeightedNode

PAIR, WEIGHT, BIAS, FOLDED = (206, 12), (162, 6), (134, 4), (-170, -4)
"""Bytes and occurrences of the name: of the two nodes at an activation; the one at a weight; the one at a bias; a
BatchNormalization, which is folded into its Conv."""

ADD, ZEROS = 60, 35
"""Bytes of an Add that becomes the bias of a MatMul, and of the header of zero points."""


def added_bytes(model: ir.Model, nodes: Sequence[WeightedNode]) -> int:
    """How much static quantization of these nodes (Conv, Gemm and MatMul with one weight each) adds to the file."""
    by_name = {node.name: node for node in all_nodes(model)}
    rank = {value: len(shape) for value, shape in inferred(model).items()} if nodes else {}
    paired: set[ir.Value | None] = set()
    zeros: set[int] = set()
    total = 0
    for weighted in nodes:
        node, (weight,) = by_name[weighted.name], weighted.weights[-1:]
        channels = weight.shape[0 if node.op_type == "Conv" else -1]
        total += 4 * channels + (0 if channels in zeros else channels) - (ZEROS if channels in zeros else 0)
        zeros.add(channels)
        total += _around(node, channels, rank, paired)
    return total


def _around(node: ir.Node, channels: int, rank: Mapping[ir.Value, int], paired: set[ir.Value | None]) -> int:
    """The size at a node's input, weight, bias and, for Conv, output; `paired` are activations counted already."""
    size = 0
    parts = [(WEIGHT, node.inputs[1])]
    bias, written = input_of(node, 2), node.outputs[0]
    while (reader := only_reader(written)) and reader.op_type in ("BatchNormalization", "Clip", "Relu"):
        if reader.op_type == "BatchNormalization":
            size -= 4 * channels * (3 if bias is None else 4)
            bias = reader.inputs[2]
            parts.append((FOLDED, reader.inputs[1]))
        written = reader.outputs[0]
    if node.op_type == "MatMul" and reader and reader.op_type == "Add" and rank.get(node.inputs[0]) == 2:
        bias = next((value for value in reader.inputs if constant(value) is not None), None)
        size -= 0 if bias is None else ADD
    if bias is not None:
        size += 4 * channels  # a scale for each
        parts.append((BIAS, bias))
    activations = {node.inputs[0], written} if node.op_type == "Conv" else {node.inputs[0]}
    parts += [(PAIR, value) for value in activations - paired]
    paired |= activations
    return size + sum(plain + copies * len(name_of(value)) for (plain, copies), value in parts)
