"""Read the states of a recurrent layer with one step from its last state.

Y [steps, directions, batch, hidden] holds the states of all steps, Y_h [directions, batch, hidden] the last one: with
one step they are equal. Y is mostly squeezed right after; `collapse_views` then removes both view operators.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.shapes import inferred
from stages.common.graph.walk import add_initializer, input_of, name_of, number

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_LENGTHS = 4
"""The input with the number of steps of each sample; with 0 steps, Y and Y_h differ."""


def apply(model: ir.Model) -> PassResult:
    """Rewrite the recurrent layers with one step in the main graph, in place."""
    shapes, names, modified = inferred(model), Names(model), False
    for node in list(model.graph):
        if node.op_type not in _RECURRENT or node.domain or input_of(node, _LENGTHS) is not None:
            continue
        steps = int(number(node, "layout", 0))  # the axis of the steps in X, and in Y
        states = node.outputs[0]
        read = input_of(node, 0)
        if read is None or shapes.get(read, [None] * 3)[steps] != 1 or not states.uses() or states.is_graph_output():
            continue
        if len(node.outputs) < 2:
            node.resize_outputs(2)
        last = node.outputs[1]
        last.name = last.name or names.fresh(f"{node.name}_last")
        last.type = states.type
        stem = name_of(states)
        axis: ir.Value | ir.Attr = ir.AttrInt64s("axes", [steps])
        inputs, attributes = [last], [axis]
        if model.opset_imports.get("", 0) >= 13:
            axes = add_initializer(model.graph, names.fresh(f"{stem}_steps"), np.array([steps], np.int64))
            inputs, attributes = [last, axes], []
        unsqueezed = ir.Node("", "Unsqueeze", inputs, attributes, name=names.fresh(f"{node.name}_Unsqueeze"))
        unsqueezed.outputs[0].name, unsqueezed.outputs[0].type = names.fresh(f"{stem}_of_one_step"), states.type
        ir.convenience.replace_all_uses_with(states, unsqueezed.outputs[0])
        model.graph.insert_after(node, unsqueezed)
        modified = True
    return PassResult(model, modified)
