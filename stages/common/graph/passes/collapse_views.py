"""Chains of operators that move no data become one Reshape, or nothing, if all shapes are fixed.

Exporters write chains of Squeeze, Transpose, Unsqueeze and Reshape around recurrent layers. Each is a kernel of its own
at run time, about half a microsecond.
"""

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.shapes import inferred
from stages.common.graph.walk import add_initializer, constant, name_of, remove_unused

_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def apply(model: ir.Model) -> PassResult:
    """Collapse the chains of the main graph."""
    shapes = {
        value: tuple(size for size in dims if size is not None)
        for value, dims in inferred(model).items()
        if None not in dims
    }
    names, modified = Names(model), False
    for node in list(model.graph):
        if not _is_view(node, shapes):
            continue
        output, source = node.outputs[0], node.inputs[0]
        length = 1
        while (producer := source.producer() if source is not None else None) is not None and _is_view(
            producer, shapes
        ):
            source, length = producer.inputs[0], length + 1
        if source is None or output.is_graph_output():
            continue
        if shapes[source] == shapes[output]:
            ir.convenience.replace_all_uses_with(output, source)
            modified = True
        elif length > 1:
            shape = add_initializer(
                model.graph, names.fresh(f"{name_of(output)}_shape"), np.array(shapes[output], np.int64)
            )
            reshaped = ir.node("Reshape", [source, shape], name=names.fresh(f"{node.name}_Reshape"))
            reshaped.outputs[0].name = names.fresh(f"{name_of(output)}_view")
            reshaped.outputs[0].type = output.type
            model.graph.insert_before(node, reshaped)
            shapes[reshaped.outputs[0]] = shapes[output]
            ir.convenience.replace_all_uses_with(output, reshaped.outputs[0])
            modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)


def _is_view(node: ir.Node, shapes: dict[ir.Value, tuple[int, ...]]) -> bool:
    """Whether a node keeps the values of its first input in order, with fixed shapes that are not empty."""
    if node.op_type not in _VIEWS or node.domain or node.inputs[0] not in shapes or node.outputs[0] not in shapes:
        return False
    if constant(node.inputs[0]) is not None:
        return False
    shape = shapes[node.inputs[0]]
    if not math.prod(shape):
        return False
    if node.op_type != "Transpose":
        return True
    order = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(shape))[::-1]
    moved = [axis for axis in order if shape[axis] > 1]
    return moved == sorted(moved)
