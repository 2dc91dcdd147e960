"""Replace Softmax of two classes by Sigmoid of their difference.

    exp(a) / (exp(a) + exp(b)) = 1 / (1 + exp(b - a))

ONNX Runtime's Softmax processes rows one by one, which is slow if a detector has thousands of rows of two: a product
with ((1, -1), (-1, 1)) and Sigmoid process all at once. Probabilities agree within 3e-7. A Softmax whose logarithm is
taken stays, as ONNX Runtime's Sigmoid never returns values between 0 and 1.5e-8.
"""

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.shapes import inferred
from stages.common.graph.walk import input_of, name_of, number

ROWS = 256
"""With fewer rows Softmax is as fast."""

_DIFFERENCE = np.array([[1, -1], [-1, 1]], np.float32)
"""Emitted as a Constant node, so that it does not count as a weight and is not quantized."""


def apply(model: ir.Model) -> PassResult:
    """Rewrite the Softmax nodes of the main graph that have two classes and many rows, in place."""
    softmaxes = [node for node in model.graph if node.op_type == "Softmax" and not node.domain]
    shapes, names, modified = inferred(model) if softmaxes else {}, Names(model), False
    default_axis = -1 if model.opset_imports.get("", 0) >= 13 else 1
    for node in softmaxes:
        read, output = input_of(node, 0), node.outputs[0]
        dims = shapes.get(read) if read is not None else None
        if read is None or not dims or dims[-1] != 2 or output.dtype not in (None, ir.DataType.FLOAT):
            continue
        last = int(number(node, "axis", default_axis)) % len(dims) == len(dims) - 1
        if not last or math.prod(size for size in dims[:-1] if size is not None) < ROWS or _logarithm(output):
            continue
        matrix = ir.node("Constant", [], {"value": ir.tensor(_DIFFERENCE)}, name=names.fresh(f"{node.name}_Constant"))
        matrix.outputs[0].name = names.fresh(f"{name_of(output)}_difference")
        product = ir.node("MatMul", [read, matrix.outputs[0]], name=names.fresh(f"{node.name}_MatMul"))
        product.outputs[0].name = names.fresh(f"{name_of(output)}_differences")
        product.outputs[0].type = output.type
        sigmoid = ir.node("Sigmoid", [product.outputs[0]], name=node.name)
        ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], [matrix, product, sigmoid], [output], [sigmoid.outputs[0]]
        )
        modified = True
    return PassResult(model, modified)


def _logarithm(value: ir.Value) -> bool:
    """Whether a node takes the logarithm of a value, directly or through Slice, Reshape and the like."""
    readers = [use.node for use in value.uses()]
    return any(
        node.op_type == "Log" or (node.op_type in _VIEWS and any(map(_logarithm, node.outputs))) for node in readers
    )


_VIEWS = frozenset({"Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose"})
