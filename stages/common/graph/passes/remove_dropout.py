"""Dropout does nothing at inference; ONNX Runtime removes it at load even if it is in training mode.

If calibration reads its output, ONNX Runtime has to keep it, and would draw random numbers.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.walk import replace


def apply(model: ir.Model) -> PassResult:
    """Replace every Dropout whose mask is unused by Identity, which ONNX Runtime removes at load."""
    modified = False
    for node in list(model.graph.all_nodes()):
        masks = node.outputs[1:]
        if node.op_type == "Dropout" and not node.domain and not any(m.uses() or m.is_graph_output() for m in masks):
            identity = ir.node("Identity", node.inputs[:1], name=node.name)
            replace([node], [identity], [identity.outputs[0], *(ir.Value() for _ in masks)])
            modified = True
    return PassResult(model, modified)
