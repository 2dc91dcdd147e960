"""Replace the Slice nodes that cut a tensor into pieces of length 1 along several axes by one Split.

Recurrent models keep the states of all layers in one tensor, [1, layers, units, 2], and cut out each state with its own
Slice. With the cut axes moved to the front, every piece is contiguous in memory, and one Split returns all of them.
(ONNX Runtime does so for cuts along one axis.)
"""

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.shapes import Dims, inferred
from stages.common.graph.walk import add_initializer, constant, input_of, name_of, only_reader, remove_unused

Place = tuple[tuple[int, int], ...]
"""(axis, index) for each axis that is cut."""


def apply(model: ir.Model) -> PassResult:
    """Split the tensors of the main graph that Slice nodes cut up completely, in place."""
    if model.opset_imports.get("", 0) < 13 or not any(node.op_type == "Slice" for node in model.graph):
        return PassResult(model, False)
    shapes, names, modified = inferred(model), Names(model), False
    groups: dict[tuple[ir.Value, tuple[int, ...]], dict[ir.Node, Place]] = {}
    for node in model.graph:
        place = _place(node, shapes)
        if len(place) > 1 and (whole := node.inputs[0]) is not None:
            groups.setdefault((whole, tuple(axis for axis, _ in place)), {})[node] = place
    for (whole, axes), cuts in groups.items():
        if len(set(cuts.values())) == math.prod(shapes[whole][axis] or 0 for axis in axes):
            _split(model, whole, cuts, shapes, names)
            modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)


def _place(node: ir.Node, shapes: dict[ir.Value, Dims]) -> Place:
    """Where a Slice cuts out a piece of length 1; empty if it does anything else."""
    whole = input_of(node, 0)
    if node.op_type != "Slice" or node.domain or whole not in shapes or node.outputs[0].is_graph_output():
        return ()
    dims = [size or 0 for size in shapes[whole]]
    bounds = [_numbers(input_of(node, index)) for index in (1, 2)]
    axes = _numbers(input_of(node, 3)) or list(range(len(bounds[0])))
    steps = _numbers(input_of(node, 4)) or [1] * len(axes)
    if not all(dims) or not (len(bounds[0]) == len(bounds[1]) == len(axes) == len(steps)):
        return ()
    place = []
    for start, end, axis, step in zip(*bounds, axes, steps, strict=True):
        first, last, _ = slice(start, end).indices(dims[axis])
        if step != 1 or last - first not in (1, dims[axis]):
            return ()
        if last - first < dims[axis]:
            place.append((axis % len(dims), first))
    return tuple(sorted(place))


def _numbers(value: ir.Value | None) -> list[int]:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return [int(item) for item in tensor.numpy().reshape(-1)] if tensor is not None else []


def _split(
    model: ir.Model,
    whole: ir.Value,
    cuts: dict[ir.Node, Place],
    shapes: dict[ir.Value, Dims],
    names: Names,
) -> None:
    """Replace the Slice nodes, and the Reshape after each if all have one shape, by Transpose, Reshape and Split."""
    dims, axes = [size or 0 for size in shapes[whole]], [axis for axis, _ in next(iter(cuts.values()))]
    targets = [_reshaped(node) for node in cuts]
    if len({tuple(shapes.get(value, ())) for value in targets}) > 1:
        targets = [node.outputs[0] for node in cuts]
    shape = [size or 0 for size in shapes[targets[0]]]
    pieces = math.prod(dims[axis] for axis in axes)
    stem = name_of(whole)
    order = [*axes, *(axis for axis in range(len(dims)) if axis not in axes)]
    lengths = [
        add_initializer(model.graph, names.fresh(f"{stem}_{what}"), np.array(values, np.int64))
        for what, values in (("rows", [pieces * shape[0], *shape[1:]]), ("pieces", [shape[0]] * pieces))
    ]
    turned = ir.node("Transpose", [whole], {"perm": order}, name=names.fresh(f"{stem}_Transpose"))
    rows = ir.node("Reshape", [turned.outputs[0], lengths[0]], name=names.fresh(f"{stem}_Reshape"))
    name = names.fresh(f"{stem}_Split")
    split = ir.node("Split", [rows.outputs[0], lengths[1]], {"axis": 0}, num_outputs=pieces, name=name)
    for node in (turned, rows, split):
        for value in node.outputs:
            value.name, value.type = names.fresh(f"{node.name}_output"), whole.type
    model.graph.insert_before(next(iter(cuts)), [turned, rows, split])
    for place, target in zip(cuts.values(), targets, strict=True):
        number = np.ravel_multi_index([at for _, at in place], [dims[axis] for axis in axes])
        ir.convenience.replace_all_uses_with(target, split.outputs[int(number)])


def _reshaped(node: ir.Node) -> ir.Value:
    """The output of a Slice, or of a Reshape to a constant shape that is its only reader."""
    value: ir.Value = node.outputs[0]
    reader = only_reader(value)
    if reader is None or reader.op_type != "Reshape" or constant(input_of(reader, 1)) is None:
        return value
    return value if reader.outputs[0].is_graph_output() else reader.outputs[0]
