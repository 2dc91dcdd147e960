"""Read the inputs of a Concat directly if a Slice or Split cuts them out of its output again.

Detectors concatenate centres and sizes of boxes and split them again, copying a few bytes at a time. A Concat that
nothing else reads is removed.
"""

from collections.abc import Iterator
from itertools import accumulate

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.shapes import Dims, inferred
from stages.common.graph.walk import input_of, integers, number, remove_unused

Cut = tuple[ir.Value, int, int]
"""A value, and its start and end along the axis of the Concat."""


def apply(model: ir.Model) -> PassResult:
    """Replace slices of Concat outputs in the main graph by the Concat inputs that they equal, in place."""
    shapes, modified = inferred(model), False
    for concat in [node for node in model.graph if node.op_type == "Concat" and not node.domain]:
        parts = _parts(concat, shapes)
        for reader in {use.node for use in concat.outputs[0].uses()}:
            for value, start, end in _cuts(reader, concat, shapes):
                part = parts.get((start, end))
                if part is not None and value.uses() and not value.is_graph_output():
                    ir.convenience.replace_all_uses_with(value, part)
                    modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)


def _parts(concat: ir.Node, shapes: dict[ir.Value, Dims]) -> dict[tuple[int, int], ir.Value]:
    """The inputs of a Concat by start and end along its axis; empty if a size is unknown."""
    axis = int(number(concat, "axis", 0))
    values = [value for value in concat.inputs if value is not None]
    sizes = [shapes[value][axis] if value in shapes else None for value in values]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return {}
    ends = list(accumulate(known))
    return {(end - size, end): value for end, size, value in zip(ends, known, values, strict=True) if size}


def _cuts(node: ir.Node, concat: ir.Node, shapes: dict[ir.Value, Dims]) -> Iterator[Cut]:
    """The outputs of a Slice or Split that cuts along the axis of the Concat that it reads."""
    whole = concat.outputs[0]
    if node.domain or whole not in shapes or input_of(node, 0) is not whole:
        return
    rank, axis = len(shapes[whole]), int(number(concat, "axis", 0))
    size = shapes[whole][axis]
    if size is None:
        return
    if node.op_type == "Split" and int(number(node, "axis", 0)) % rank == axis % rank:
        ends = 0
        for value in node.outputs:
            length = shapes[value][axis] if value in shapes else None
            if length is None:
                return
            yield value, ends, ends + length
            ends += length
    numbers = [integers(input_of(node, index)) for index in range(1, 5)]
    if node.op_type == "Slice" and all(len(item) == 1 for item in numbers[:3]) and numbers[3] in ([], [1]):
        (start,), (end,), (cut,), _ = numbers
        if cut % rank == axis % rank:
            bounds = slice(start, end).indices(size)
            yield node.outputs[0], bounds[0], bounds[1]
