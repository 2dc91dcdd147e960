"""Dropout, which does nothing at inference; ONNX Runtime leaves it out at load even where it is set to training.

Where calibration makes its output visible, ONNX Runtime has to keep it, and would draw random numbers.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.walk import replace


def apply(model: ir.Model) -> PassResult:
    """Replace every Dropout whose mask is not used with Identity, which ONNX Runtime removes at load."""
    modified = False
    for node in list(model.graph.all_nodes()):
        masks = node.outputs[1:]
        if node.op_type == "Dropout" and not node.domain and not any(m.uses() or m.is_graph_output() for m in masks):
            identity = ir.node("Identity", node.inputs[:1], name=node.name)
            replace([node], [identity], [identity.outputs[0], *(ir.Value() for _ in masks)])
            modified = True
    return PassResult(model, modified)
