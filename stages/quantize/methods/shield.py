"""Floats that the body of an If, Loop or Scan reads: kept from an optimization of ONNX Runtime that ends the process.

At load, ONNX Runtime moves DequantizeLinear behind operators that only move data. If a body reads what such an operator
gives, it looks for that value among the inputs of the node with the body, where it is not, and the process aborts.
"""

import numpy as np
import onnx_ir as ir

from stages.common.graph.names import Names
from stages.common.graph.walk import add_initializer, constant, input_of, name_of

_MOVES = frozenset({"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""The operators behind which ONNX Runtime moves a DequantizeLinear with one scale."""


def apply(model: ir.Model) -> None:
    """Before such operators, write DequantizeLinear as Cast, Sub and Mul, which give the same floats; in place."""
    names = Names(model)
    for node in list(model.graph.all_nodes()):
        if node.op_type != "DequantizeLinear" or constant(node.inputs[0]) is not None:
            continue
        moving = [move for move in _moves(node) if _reaches_a_body(move)]
        if moving:
            floats = _written_out(node, names)
            for move in moving:
                move.replace_input_with(0, floats)


def _moves(node: ir.Node) -> list[ir.Node]:
    return [
        use.node
        for use in node.outputs[0].uses()
        if use.node.op_type in _MOVES and use.idx == 0 and use.node.graph is node.graph
    ]


def _reaches_a_body(move: ir.Node) -> bool:
    inside = any(use.node.graph is not move.graph for use in move.outputs[0].uses())
    return inside or any(_reaches_a_body(following) for following in _moves(move))


def _written_out(node: ir.Node, names: Names) -> ir.Value:
    """The output of a DequantizeLinear with a scale for all values, from nodes after it."""
    values, scale, zero_point = node.inputs[0], node.inputs[1], constant(input_of(node, 2))
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    stem = name_of(node.outputs[0])
    new = [ir.node("Cast", [values], {"to": ir.DataType.FLOAT}, name=names.fresh(f"{node.name}_Cast"))]
    if zero_point is not None and np.any(shift := zero_point.numpy().astype(np.float32)):
        offset = add_initializer(graph, names.fresh(f"{stem}_offset"), shift)
        new.append(ir.node("Sub", [new[-1].outputs[0], offset], name=names.fresh(f"{node.name}_Sub")))
    new.append(ir.node("Mul", [new[-1].outputs[0], scale], name=names.fresh(f"{node.name}_Mul")))
    for added in new:
        added.outputs[0].name = names.fresh(f"{stem}_float")
    graph.insert_after(node, new)
    return new[-1].outputs[0]
