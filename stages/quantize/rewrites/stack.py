"""Build a nested stack of tensors with one Concat, one Reshape and one Transpose.

Recurrent models return the states of all layers as one tensor, [1, layers, units, 2]: states are stacked by layer, then
by kind, each time with Unsqueeze and Concat.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.shapes import Dims, inferred
from stages.common.graph.walk import add_initializer, input_of, integers, name_of, number, only_reader, remove_unused

NODES = 3
"""Number of nodes that replace a stack; a stack of as many nodes or fewer stays as it is."""


@dataclass(frozen=True)
class _Stack:
    """What a value is stacked from.

    Attributes:
        parts: the parts in the order of one Concat.
        sizes: the axes of that Concat's output once reshaped: the stacks, outermost first, then the axes of a part that
            are longer than 1.
        axes: for each axis of the value, its index in `sizes`; None if its length is 1.
        nodes: number of nodes that build the stack.
    """

    parts: tuple[ir.Value, ...]
    sizes: tuple[int, ...]
    axes: tuple[int | None, ...]
    nodes: int = 0


def apply(model: ir.Model) -> PassResult:
    """Rewrite the stacks of the main graph, in place."""
    if not any(node.op_type == "Concat" for node in model.graph):
        return PassResult(model, False)
    shapes, names, modified = inferred(model), Names(model), False
    for root in [node for node in reversed(model.graph) if node.op_type == "Concat" and not node.domain]:
        stack = _stack(root.outputs[0], shapes, root)
        alike = stack is not None and len({tuple(shapes.get(part, ())) for part in stack.parts}) == 1
        if stack is not None and alike and stack.nodes > NODES:
            _build(model, root, stack, names)
            modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)


def _stack(value: ir.Value, shapes: dict[ir.Value, Dims], root: ir.Node) -> _Stack | None:
    """How a value is stacked; None if it is not a stack of equal parts."""
    dims = [size or 0 for size in shapes.get(value, [])]
    if not dims or not all(dims):
        return None
    node = value.producer()
    if node is not None and (node.domain or (node is not root and only_reader(value) is None)):
        node = None
    if node is not None and node.op_type == "Unsqueeze" and (read := node.inputs[0]) is not None:
        inner, added = _stack(read, shapes, root), {axis % len(dims) for axis in integers(input_of(node, 1))}
        if inner is None or not added:
            return None
        rest = iter(inner.axes)
        placed = tuple(None if axis in added else next(rest) for axis in range(len(dims)))
        return _Stack(inner.parts, inner.sizes, placed, inner.nodes + 1)
    if node is not None and node.op_type == "Concat":
        return _joined(node, [_stack(read, shapes, root) for read in node.inputs if read is not None])
    wide = [axis for axis, size in enumerate(dims) if size > 1]
    return _Stack(
        (value,),
        tuple(dims[axis] for axis in wide),
        tuple(wide.index(axis) if axis in wide else None for axis in range(len(dims))),
    )


def _joined(concat: ir.Node, inner: list[_Stack | None]) -> _Stack | None:
    """The stack that a Concat builds from equal parts along an axis of length 1; None for any other Concat."""
    parts = [part for part in inner if part is not None]
    axis, first = int(number(concat, "axis", 0)), parts[0] if parts else None
    if first is None or len(parts) < len(inner) or first.axes[axis] is not None:
        return None
    if any((part.sizes, part.axes) != (first.sizes, first.axes) for part in parts):
        return None
    axes = [None if place is None else place + 1 for place in first.axes]
    axes[axis] = 0
    values = tuple(value for part in parts for value in part.parts)
    nodes = 1 + sum(part.nodes for part in parts)
    return _Stack(values, (len(parts), *first.sizes), tuple(axes), nodes)


def _build(model: ir.Model, root: ir.Node, stack: _Stack, names: Names) -> None:
    """Replace the node that ends a stack by Concat of all parts, Reshape and Transpose."""
    output = root.outputs[0]
    stem = name_of(output)
    memory: list[int] = []  # axes of the output in memory order; an axis of length 1 stays before its successor
    for place in range(len(stack.sizes)):
        last = first = stack.axes.index(place)
        while first and stack.axes[first - 1] is None:
            first -= 1
        memory += range(first, last + 1)
    memory += sorted(set(range(len(stack.axes))) - set(memory))
    sizes = [1 if (size := stack.axes[axis]) is None else stack.sizes[size] for axis in memory]
    order = [memory.index(axis) for axis in range(len(memory))]
    shape = add_initializer(model.graph, names.fresh(f"{stem}_axes"), np.array(sizes, np.int64))
    row = ir.node("Concat", list(stack.parts), {"axis": 0}, name=names.fresh(f"{root.name}_Concat"))
    turned = ir.node("Reshape", [row.outputs[0], shape], name=names.fresh(f"{root.name}_Reshape"))
    whole = ir.node("Transpose", [turned.outputs[0]], {"perm": order}, name=root.name)
    for node in (row, turned):
        node.outputs[0].name, node.outputs[0].type = names.fresh(f"{node.name}_output"), output.type
    ir.convenience.replace_nodes_and_values(
        model.graph, root, [root], [row, turned, whole], [output], [whole.outputs[0]]
    )
