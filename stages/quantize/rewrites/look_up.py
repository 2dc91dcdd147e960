"""Replace OneHot times a table by a lookup of its rows.

Keras exports embeddings as such products; Gather reads the row directly. For a value outside [-depth, depth) OneHot
gives only zeros, so the table gets a row of zeros at its end.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.walk import add_initializer, constant, input_of, name_of, number, remove_unused

OPSET = 13
"""All operators used here exist with integers from opset 12 on; 13 is the one that auto converts to."""

_INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)


def apply(model: ir.Model) -> PassResult:
    """Rewrite the products of the main graph that read a OneHot, directly or through a Reshape, in place."""
    if model.opset_imports.get("", 0) < OPSET:
        return PassResult(model, False)
    names, modified = Names(model), False
    for one_hot in [node for node in model.graph if _plain(node)]:
        shapes, products = _readers(one_hot)
        if len(products) + len(shapes) < len(list(one_hot.outputs[0].uses())) or not products:
            continue
        emit = _Emitter(model, one_hot, names)
        indices = _in_table(emit, one_hot)
        for reader in shapes:
            size = emit("Concat", [emit("Shape", [one_hot.inputs[0]]), emit.vector(_depth(one_hot))], axis=0)
            _replace(reader.outputs[0], size, names)
        for product in products:
            table = constant(product.inputs[1])
            assert table is not None
            values = np.concatenate([table.numpy(), np.zeros_like(table.numpy()[:1])])
            stored = add_initializer(model.graph, names.fresh(f"{name_of(product.inputs[1])}_rows"), values)
            rows = emit("Gather", [stored, indices], axis=0, name=product.name)
            if _view(product) is not None:
                rows = emit("Reshape", [rows, emit.vector(-1, values.shape[1])])
            _replace(product.outputs[0], rows, names)
        modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)


class _Emitter:
    """Inserts nodes after a node, one after another."""

    def __init__(self, model: ir.Model, after: ir.Node, names: Names) -> None:
        self._graph, self._last, self._names = model.graph, after, names

    def __call__(
        self, op_type: str, inputs: Sequence[ir.Value | None], *, name: str | None = None, **attributes: int
    ) -> ir.Value:
        name = name or self._names.fresh(f"{self._last.name}_{op_type}")
        node = ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes), name=name)
        node.outputs[0].name = self._names.fresh(f"{name}_output")
        self._graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]

    def vector(self, *numbers: int) -> ir.Value:
        return self.number(np.array(numbers, np.int64))

    def number(self, values: np.ndarray) -> ir.Value:
        return add_initializer(self._graph, self._names.fresh("number"), values)


def _replace(old: ir.Value, new: ir.Value, names: Names) -> None:
    """Let `new` take over the readers and the name of `old`."""
    name = name_of(old)
    new.type, new.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name, new.name = names.fresh(f"{name}_before"), name


def _plain(node: ir.Node) -> bool:
    """Whether a node is a OneHot of integers with zeros and ones along a new last axis."""
    if node.op_type != "OneHot" or node.domain or number(node, "axis", -1) != -1 or node.outputs[0].is_graph_output():
        return False
    indices, values = node.inputs[0], constant(node.inputs[2])
    of_integers = indices is not None and constant(indices) is None and indices.dtype in _INTEGERS
    return (
        of_integers
        and constant(node.inputs[1]) is not None
        and values is not None
        and values.numpy().tolist() == [0, 1]
    )


def _depth(one_hot: ir.Node) -> int:
    depth = constant(one_hot.inputs[1])
    assert depth is not None
    return int(depth.numpy().reshape(-1)[0])


def _readers(one_hot: ir.Node) -> tuple[list[ir.Node], list[ir.Node]]:
    """The Shape nodes that read a OneHot, and the products that read its values."""
    shapes, products = [], []
    for use in one_hot.outputs[0].uses():
        node = use.node
        if node.op_type == "Shape" and not node.attributes:
            shapes.append(node)
        elif node.op_type == "Reshape" and use.idx == 0 and len(list(node.outputs[0].uses())) == 1:
            products += [read.node for read in node.outputs[0].uses() if _view(read.node) is node]
        elif _view(node) is None:
            products.append(node)
    return shapes, [node for node in products if _multiplies(node, _depth(one_hot))]


def _multiplies(node: ir.Node, depth: int) -> bool:
    table = constant(input_of(node, 1)) if node.op_type == "MatMul" and not node.domain else None
    return table is not None and table.dtype == ir.DataType.FLOAT and list(table.shape.numpy())[:-1] == [depth]


def _view(product: ir.Node) -> ir.Node | None:
    """The Reshape to [-1, depth] that a product reads; None if it reads something else."""
    read = input_of(product, 0)
    node = read.producer() if read is not None else None
    shape = constant(input_of(node, 1)) if node is not None and node.op_type == "Reshape" else None
    return node if shape is not None and shape.size == 2 and shape.numpy()[0] == -1 else None


def _in_table(emit: _Emitter, one_hot: ir.Node) -> ir.Value:
    """Emit the row numbers: negative values count from the end, values out of range get the last row."""
    indices, depth = one_hot.inputs[0], _depth(one_hot)
    assert indices is not None and indices.dtype is not None
    zero, end, last = (emit.number(np.array(number, indices.dtype.numpy())) for number in (0, depth, -1))
    counted = emit("Where", [emit("Less", [indices, zero]), emit("Add", [indices, end]), indices])
    return emit("Clip", [counted, last, end])
