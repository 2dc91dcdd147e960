"""Turn the shapes of Reshape that are computed at run time but never change into constants.

`Reshape(x, Concat(Gather(Shape(x), 0), -1, 4))` hides from shape inference, and so from other rewrites, the shapes of
everything after it.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.passes.compute_constants import compute, is_known
from stages.common.graph.shapes import fixed_numbers
from stages.common.graph.walk import add_initializer, constant, input_of, name_of, remove_unused

ROUNDS = 4
"""Most rounds: each one makes shapes known that later Reshape nodes depend on."""


def apply(model: ir.Model) -> PassResult:
    """Make the shapes of Reshape nodes in the main graph constant, in place."""
    rounds = 0
    while rounds < ROUNDS and _round(model):
        rounds += 1
    if rounds:
        remove_unused(model)
    return PassResult(model, rounds > 0)


def _round(model: ir.Model) -> bool:
    """Turn the shapes that are known now into constants; return whether any are known."""
    computed = [(node, shape) for node in model.graph if (shape := _computed_shape(node)) is not None]
    fixed, names = fixed_numbers(model) if computed else {}, Names(model)
    known, modified = dict.fromkeys(fixed, True), False
    for node, shape in computed:
        if is_known(shape, known) and (values := compute(model, shape, fixed)):
            node.replace_input_with(1, add_initializer(model.graph, names.fresh(f"{name_of(shape)}_stated"), values[0]))
            modified = True
    return modified


def _computed_shape(node: ir.Node) -> ir.Value | None:
    shape = input_of(node, 1) if node.op_type == "Reshape" and not node.domain else None
    return None if shape is None or constant(shape) is not None else shape
