"""Operators that ONNX Runtime's optimiser fuses for floats, taken apart: what they are made of has INT8 forms.

A model that was saved optimised holds them. ONNX Runtime fuses again at load what then stayed float.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from stages.quantize.graphs import Names, Scope, all_nodes, attribute, copy, replace_nodes, scopes

_DOMAIN = "com.microsoft"

_CONV_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""What the numbers in `activation_params` of FusedConv mean, by its activation."""


def take_apart(model: ModelProto) -> tuple[ModelProto, bool]:
    """Replace FusedConv, FusedGemm, and FusedMatMul with a constant on the right, in every graph."""
    if not any(node.domain == _DOMAIN and node.op_type in _RULES for node in all_nodes(model)):
        return model, False
    apart = copy(model)
    names = Names(apart)
    modified = False
    # Inner graphs first: the outer node that holds them is copied when its own graph is rebuilt.
    for scope in reversed(scopes(apart)):
        parts = [_parts(node, scope, names) for node in scope.graph.node]
        if any(parts):
            modified = True
            nodes = [made or [node] for node, made in zip(scope.graph.node, parts, strict=True)]
            replace_nodes(scope.graph, [node for made in nodes for node in made])
    return (apart, True) if modified else (model, False)


def _parts(node: NodeProto, scope: Scope, names: Names) -> list[NodeProto]:
    """The nodes that a fused one is made of; none where it is not fused, or in a way that has no plain form."""
    rule = _RULES.get(node.op_type) if node.domain == _DOMAIN else None
    return rule(node, scope, names) if rule else []


def _gemm(node: NodeProto, _: Scope, names: Names) -> list[NodeProto]:
    given = {each.name.removeprefix("activation_"): each for each in node.attribute if "activation_" in each.name}
    activation = _text(node, "activation")
    known = onnx.defs.get_schema(activation).attributes if activation else ()
    parameters = {name: helper.get_attribute_value(each) for name, each in given.items() if name in known}
    gemm = helper.make_node("Gemm", node.input, node.output, node.name)
    gemm.attribute.extend(each for each in node.attribute if not each.name.startswith("activation"))
    return _activated([gemm], activation, parameters, names)


def _conv(node: NodeProto, _: Scope, names: Names) -> list[NodeProto]:
    activation = _text(node, "activation")
    if activation and activation not in _CONV_ACTIVATIONS:
        return []
    numbers = next((list(each.floats) for each in node.attribute if each.name == "activation_params"), [])
    parameters = dict(zip(_CONV_ACTIVATIONS.get(activation, ()), numbers, strict=False))
    conv = helper.make_node("Conv", node.input[:3], node.output, node.name)
    conv.attribute.extend(each for each in node.attribute if not each.name.startswith("activation"))
    made = [conv]
    if len(node.input) > 3 and node.input[3]:
        conv.output[0] = names.fresh(f"{node.output[0]}_conv")
        made.append(helper.make_node("Add", [conv.output[0], node.input[3]], node.output))
    return _activated(made, activation, parameters, names)


def _matmul(node: NodeProto, scope: Scope, names: Names) -> list[NodeProto]:
    """The product alpha A B', with B constant; its factor and its transposition are made to B."""
    right = scope.constant(node.input[1])
    if right is None or any(attribute(node, each, 0) for each in ("transA", "transBatchA", "transBatchB")):
        return []
    made: list[NodeProto] = []
    name = node.input[1]
    if attribute(node, "transB", 0) and len(right.dims) > 1:
        axes = list(range(len(right.dims)))
        turned = names.fresh(f"{name}_transposed")
        made.append(helper.make_node("Transpose", [name], [turned], perm=[*axes[:-2], axes[-1], axes[-2]]))
        name = turned
    alpha = attribute(node, "alpha", 1.0)
    if alpha != 1:
        factor, scaled = names.fresh(f"{name}_alpha"), names.fresh(f"{name}_scaled")
        value = numpy_helper.from_array(np.array(alpha, helper.tensor_dtype_to_np_dtype(right.data_type)))
        made.append(helper.make_node("Constant", [], [factor], value=value))
        made.append(helper.make_node("Mul", [name, factor], [scaled]))
        name = scaled
    made.append(helper.make_node("MatMul", [node.input[0], name], node.output, node.name))
    return made


def _activated(made: list[NodeProto], activation: str, parameters: dict[str, float], names: Names) -> list[NodeProto]:
    """The nodes with an activation behind the last of them."""
    if activation:
        output = made[-1].output[0]
        made[-1].output[0] = names.fresh(f"{output}_before")
        made.append(helper.make_node(activation, [made[-1].output[0]], [output], **parameters))
    return made


def _text(node: NodeProto, name: str) -> str:
    return next((each.s.decode() for each in node.attribute if each.name == name), "")


_RULES: dict[str, Callable[[NodeProto, Scope, Names], list[NodeProto]]] = {
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
}
