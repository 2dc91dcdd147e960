"""Pad a convolution with filters of zeros, so that it gets the fast INT8 kernel, and slice their output off again.

ONNX Runtime's kernel for symmetric weights (MLAS ConvSym) needs a multiple of 4 channels and of 8 filters, at least 16
filters; otherwise the convolution is a matrix product of copied patches, which takes up to twice as long.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.walk import add_initializer, constant, input_of, name_of, number
from stages.quantize.methods.static.qdq import tail

FILTERS, CHANNELS, MIN_FILTERS = 8, 4, 16


def suited(shape: Sequence[int]) -> bool:
    """Whether a weight, [filters, channels, ...], only lacks filters for the fast kernel."""
    return len(shape) > 2 and shape[1] % CHANNELS == 0 and shape[0] != _wanted(shape[0])


def apply(model: ir.Model, names: Collection[str]) -> PassResult:
    """Pad the Conv nodes with these names in the main graph, in place; those with groups stay as they are."""
    fresh, modified = Names(model), False
    for node in list(model.graph):
        weight, bias = (constant(input_of(node, index)) for index in (1, 2)) if node.name in names else (None, None)
        if weight is None or (bias is None and input_of(node, 2) is not None):
            continue
        values = weight.numpy()
        if node.op_type != "Conv" or not suited(values.shape) or number(node, "group", 1) != 1:
            continue
        for index, array in ((1, values), (2, bias.numpy() if bias is not None else None)):
            if array is not None:
                zeros = [(0, _wanted(len(values)) - len(values)), *[(0, 0)] * (array.ndim - 1)]
                stored = fresh.fresh(f"{name_of(node.inputs[index])}_padded")
                node.replace_input_with(index, add_initializer(model.graph, stored, np.pad(array, zeros)))
        _cut(model.graph, node, len(values), fresh)
        modified = True
    return PassResult(model, modified)


def _wanted(filters: int) -> int:
    return max(MIN_FILTERS, -(-filters // FILTERS) * FILTERS)


def _cut(graph: ir.Graph, node: ir.Node, filters: int, names: Names) -> None:
    """Cut off the output of the added filters, after the activation that is fused into the convolution."""
    whole = tail(node)
    last, name = whole.producer(), name_of(whole)
    assert last is not None
    bounds = [
        add_initializer(graph, names.fresh(f"{name}_{suffix}"), np.array([value], np.int64))
        for suffix, value in (("start", 0), ("end", filters), ("axis", 1))
    ]
    cut = ir.node("Slice", [whole, *bounds], name=names.fresh(f"{node.name}_Slice"))
    cut.outputs[0].type, cut.outputs[0].shape = whole.type, whole.shape
    ir.convenience.replace_all_uses_with(whole, cut.outputs[0], replace_graph_outputs=True)
    cut.replace_input_with(0, whole)
    whole.name, cut.outputs[0].name, whole.shape = names.fresh(f"{name}_padded"), name, None
    if last is not node:
        node.outputs[0].name, node.outputs[0].shape = names.fresh(f"{name_of(node.outputs[0])}_padded"), None
    graph.insert_after(last, cut)
