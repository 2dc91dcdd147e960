"""Shapes to reshape to that exporters compute while the model runs, though they are the same in every run.

`Reshape(x, Concat(Gather(Shape(x), 0), -1, 4))` hides the shape of all that follows: what other rewrites ask for.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.passes.compute_constants import compute, is_known
from stages.common.graph.shapes import fixed_numbers
from stages.common.graph.walk import add_initializer, constant, input_of, name_of, remove_unused

ROUNDS = 4
"""Each makes known what the next Reshape of a chain asks for."""


def apply(model: ir.Model) -> PassResult:
    """Make constants of the shapes that Reshape nodes in the main graph read, in place."""
    rounds = 0
    while rounds < ROUNDS and _stated(model):
        rounds += 1
    if rounds:
        remove_unused(model)
    return PassResult(model, rounds > 0)


def _stated(model: ir.Model) -> bool:
    """Whether a shape became constant."""
    asked = [(node, shape) for node in model.graph if (shape := _computed_shape(node)) is not None]
    fixed, names = fixed_numbers(model) if asked else {}, Names(model)
    known, stated = dict.fromkeys(fixed, True), False
    for node, shape in asked:
        if is_known(shape, known) and (values := compute(model, shape, fixed)):
            node.replace_input_with(1, add_initializer(model.graph, names.fresh(f"{name_of(shape)}_stated"), values[0]))
            stated = True
    return stated


def _computed_shape(node: ir.Node) -> ir.Value | None:
    shape = input_of(node, 1) if node.op_type == "Reshape" and not node.domain else None
    return None if shape is None or constant(shape) is not None else shape
