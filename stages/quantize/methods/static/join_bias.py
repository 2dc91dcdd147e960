"""Fuse MatMul and the Add of its bias into a Gemm.

Otherwise ONNX Runtime fuses them at load into a Gemm with a float bias, which has no INT8 kernel; a small MLP was 3 to
4 times slower.
"""

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.shapes import inferred
from stages.common.graph.walk import constant, only_reader


def apply(model: ir.Model, names: Collection[str]) -> PassResult:
    """Fuse the MatMul nodes with these names in the main graph.

    The activation must have rank 2, and the bias one value per column. The Gemm keeps the name of the MatMul and the
    output of the Add.
    """
    candidates = [node for node in model.graph if node.op_type == "MatMul" and node.name in names]
    shapes = inferred(model) if candidates else {}
    modified = False
    for node in candidates:
        activation, weight = node.inputs[0], constant(node.inputs[1])
        add = only_reader(node.outputs[0])
        if activation is None or weight is None or add is None or add.op_type != "Add":
            continue
        if len(shapes.get(activation, ())) != 2 or weight.shape.rank() != 2:
            continue
        bias = next((value for value in add.inputs if value is not node.outputs[0]), None)
        values, columns = constant(bias), weight.shape.numpy()[1]
        if values is None or values.shape.numpy() not in ((columns,), (1, columns)):
            continue
        gemm = ir.node("Gemm", [activation, node.inputs[1], bias], name=node.name)
        ir.convenience.replace_nodes_and_values(
            model.graph, add, [node, add], [gemm], [add.outputs[0]], [gemm.outputs[0]]
        )
        modified = True
    return PassResult(model, modified)
