"""A float16 model becomes float32: ONNX Runtime's INT8 kernels take and give float32 only.

Inputs and outputs keep their types, by casts. From a float16 model, ONNX Runtime's own quantizer writes a file that
does not load (issue 15341).
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.model import model_file

_HALF, _FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT

_TYPE_ATTRIBUTES = frozenset({"dtype", "to"})
"""Attributes that hold the output type of nodes such as Cast, EyeLike and RandomNormal."""


def apply(model: ir.Model) -> PassResult:
    """Turn every float16 into float32, in a model with a float16 weight."""
    weights = (tensor for tensor in model_file.tensors(model) if sum(size > 1 for size in tensor.shape.numpy()) > 1)
    if not any(tensor.dtype == _HALF for tensor in weights):
        return PassResult(model, modified=False)
    names = Names(model)
    ends = ([value for value in model.graph.inputs if value.dtype == _HALF],
            [value for value in model.graph.outputs if value.dtype == _HALF])  # fmt: skip
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype == _HALF:
                value.const_value = _widened(value.const_value)
        values = [*graph.initializers.values(), *(output for node in graph for output in node.outputs)]
        for value in [*values, *(graph.inputs if graph is not model.graph else ())]:
            value.type = _wide(value.type)
        for node in graph:
            _widen_attributes(node)
    for value in dict.fromkeys(ends[1]):
        _cast_output(model.graph, value, names)
    for value in ends[0]:
        _cast_input(model.graph, value, names)
    return PassResult(model, modified=True)


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _wide(kind: ir.TypeProtocol | None) -> ir.TypeProtocol | None:
    """The type with float32 instead of float16; a new object, as clones of a model share types."""
    if isinstance(kind, ir.SequenceType | ir.OptionalType):
        return type(kind)(_wide(kind.elem_type))
    return type(kind)(_FLOAT) if isinstance(kind, ir.TensorType) and kind.dtype == _HALF else kind


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if name in _TYPE_ATTRIBUTES and attribute.value == _HALF:
            node.attributes[name] = ir.AttrInt64(name, _FLOAT)
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _HALF:
            node.attributes[name] = ir.AttrTensor(name, _widened(attribute.as_tensor()))


def _cast_input(graph: ir.Graph, value: ir.Value, names: Names) -> None:
    """Cast an input to float32 for all its readers."""
    name = value.name or ""
    wide = ir.Value(name=names.fresh(f"{name}_float32"), type=ir.TensorType(_FLOAT), shape=value.shape)
    users = list(value.uses())
    cast = ir.node("Cast", [value], {"to": _FLOAT}, outputs=[wide], name=names.fresh(f"{name}_Cast"))
    for user, index in users:
        user.replace_input_with(index, wide)
    first = next(iter(graph), None)
    if first is None:
        graph.append(cast)
    else:
        graph.insert_before(first, cast)


def _cast_output(graph: ir.Graph, value: ir.Value, names: Names) -> None:
    """Cast an output to float16, but not for its other readers."""
    name = value.name or ""
    if value.is_graph_input():
        return  # an input that is also an output keeps its type
    value.name = names.fresh(f"{name}_float32")
    narrow = ir.Value(name=name, type=ir.TensorType(_HALF), shape=value.shape)
    graph.append(ir.node("Cast", [value], {"to": _HALF}, outputs=[narrow], name=names.fresh(f"{name}_Cast")))
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = narrow
