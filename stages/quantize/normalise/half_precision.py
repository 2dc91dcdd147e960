"""A float16 model as the float32 model that it stands for: ONNX Runtime's INT8 kernels take and give float32 only.

The inputs and outputs keep their types; casts stand behind and before them. Left in float16, the quantizer of ONNX
Runtime writes a file that does not load (issue 15341).
"""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from stages.common.model import model_file
from stages.quantize.graphs import Names, Scope, copy, replace_nodes, scopes

_TYPE_ATTRIBUTES = frozenset({"dtype", "to"})
"""Where nodes (Cast, EyeLike, RandomNormal and the like) name the type that they give."""


def widen(model: ModelProto) -> tuple[ModelProto, bool]:
    """Make float32 of every float16 in a model that has a float16 weight."""
    weights = (each for each in model_file.tensors(model) if sum(size > 1 for size in each.dims) > 1)
    if not any(each.data_type == TensorProto.FLOAT16 for each in weights):
        return model, False
    wide = copy(model)
    names = Names(wide)
    for scope in scopes(wide):
        for tensor in scope.graph.initializer:
            _widen_tensor(tensor)
        for node in scope.graph.node:
            _widen_attributes(node)
        for each in scope.graph.value_info:
            _widen_type(each)
        if scope.outer is not None:
            for each in (*scope.graph.input, *scope.graph.output):
                _widen_type(each)
    _cast_ends(wide, names)
    return wide, True


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(model_file.array(tensor).astype(np.float32), tensor.name))


def _widen_attributes(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t"):
            _widen_tensor(attribute.t)


def _widen_type(value: ValueInfoProto) -> None:
    kinds = [value.type.tensor_type, value.type.sequence_type.elem_type.tensor_type]
    for kind in (*kinds, value.type.optional_type.elem_type.tensor_type):
        if kind.elem_type == TensorProto.FLOAT16:
            kind.elem_type = TensorProto.FLOAT


def _cast_ends(model: ModelProto, names: Names) -> None:
    """Cast float16 inputs to float32, and what the outputs are made from to float16."""
    graph = model.graph
    narrow = [
        [each.name for each in listed if each.type.tensor_type.elem_type == TensorProto.FLOAT16]
        for listed in (graph.input, graph.output)
    ]
    inside = {name: names.fresh(f"{name}_float32") for name in dict.fromkeys(narrow[0] + narrow[1])}
    for scope in scopes(model):
        _rename(scope, inside)
    casts = [
        [_cast(inside[name], name, TensorProto.FLOAT16, names) for name in narrow[1]],
        [_cast(name, inside[name], TensorProto.FLOAT, names) for name in narrow[0]],
    ]
    replace_nodes(graph, [*casts[1], *graph.node, *casts[0]])


def _rename(scope: Scope, names: dict[str, str]) -> None:
    """Rename values wherever nodes of a graph use or make them, and where a subgraph returns them."""
    for node in scope.graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)
    if scope.outer is not None:
        for each in scope.graph.output:
            each.name = names.get(each.name, each.name)


def _cast(source: str, target: str, to: int, names: Names) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=names.fresh(f"{source}_Cast"), to=to)
