"""Move Relu before MaxPool, which gives the same result.

A Relu right after a convolution becomes part of its INT8 kernel; one after a pool would run in float.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.walk import only_reader


def apply(model: ir.Model) -> PassResult:
    """Swap MaxPool and Relu in the main graph if nothing else reads the values around the pool."""
    pools = [node for node in model.graph if node.op_type == "MaxPool" and len(node.outputs) == 1]
    swapped = [pool for pool in pools if _is_between(pool)]
    for pool in swapped:
        (relu,), source = pool.outputs[0].consumers(), pool.inputs[0]
        inner, outer = pool.outputs[0], relu.outputs[0]
        first = ir.node("Relu", [source], name=relu.name)
        last = ir.Node("", "MaxPool", [first.outputs[0]], list(pool.attributes.values()), name=pool.name)
        first.outputs[0].name = inner.name
        ir.convenience.replace_nodes_and_values(
            model.graph, relu, [pool, relu], [first, last], [outer], [last.outputs[0]]
        )
    return PassResult(model, bool(swapped))


def _is_between(pool: ir.Node) -> bool:
    """Whether a pool is the only reader of its input, and a Relu the only reader of its output."""
    source, relu = pool.inputs[0], only_reader(pool.outputs[0])
    return source is not None and only_reader(source) is pool and relu is not None and relu.op_type == "Relu"
