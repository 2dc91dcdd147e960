"""Fused float operators, which a model saved by ONNX Runtime's optimizer holds, split into ones that have INT8 forms.

ONNX Runtime fuses those that stay float again at load.
"""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.walk import MICROSOFT, constant, input_of, number, replace

_CONV_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""What the numbers in `activation_params` of FusedConv mean, by activation."""


def apply(model: ir.Model) -> PassResult:
    """Replace FusedConv, FusedGemm, and FusedMatMul with a constant second operand, in every graph."""
    names = Names(model)
    modified = False
    for node in list(model.graph.all_nodes()):
        split = _SPLITS.get(node.op_type) if node.domain == MICROSOFT else None
        parts = split(node) if split else []
        for part in parts:
            for output in part.outputs:
                output.name = names.fresh(f"{node.outputs[0].name}_{part.op_type}")
        if parts:
            replace([node], parts, [parts[-1].outputs[0]])
            modified = True
    return PassResult(model, modified)


def _gemm(node: ir.Node) -> list[ir.Node]:
    activation = _text(node, "activation")
    known = onnx.defs.get_schema(activation).attributes if activation else ()
    given = {
        name.removeprefix("activation_"): attribute.value
        for name, attribute in node.attributes.items()
        if "activation_" in name
    }
    parameters = {name: value for name, value in given.items() if name in known}
    return _activated([_plain("Gemm", node, node.inputs)], activation, parameters)


def _conv(node: ir.Node) -> list[ir.Node]:
    activation = _text(node, "activation")
    if activation and activation not in _CONV_ACTIVATIONS:
        return []
    given = node.attributes.get("activation_params")
    numbers = list(given.as_floats()) if given is not None else []
    parameters = dict(zip(_CONV_ACTIVATIONS.get(activation, ()), numbers, strict=False))
    parts = [_plain("Conv", node, node.inputs[:3])]
    addend = input_of(node, 3)
    if addend is not None:
        parts.append(ir.node("Add", [parts[0].outputs[0], addend]))
    return _activated(parts, activation, parameters)


def _matmul(node: ir.Node) -> list[ir.Node]:
    """The product alpha A B' with B constant: factor and transposition are applied to B."""
    right = constant(node.inputs[1])
    if right is None or any(number(node, name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        return []
    parts: list[ir.Node] = []
    value = node.inputs[1]
    if number(node, "transB", 0) and right.shape.rank() > 1:
        axes = list(range(right.shape.rank()))
        parts.append(ir.node("Transpose", [value], {"perm": [*axes[:-2], axes[-1], axes[-2]]}))
        value = parts[-1].outputs[0]
    alpha = number(node, "alpha", 1.0)
    if alpha != 1:
        factor = ir.node("Constant", [], {"value": ir.tensor(np.array(alpha, right.dtype.numpy()))})
        parts += [factor, ir.node("Mul", [value, factor.outputs[0]])]
        value = parts[-1].outputs[0]
    return [*parts, ir.node("MatMul", [node.inputs[0], value], name=node.name)]


def _plain(op_type: str, node: ir.Node, inputs: tuple[ir.Value | None, ...]) -> ir.Node:
    attributes = [attribute for name, attribute in node.attributes.items() if not name.startswith("activation")]
    return ir.Node("", op_type, list(inputs), attributes, name=node.name)


def _activated(parts: list[ir.Node], activation: str, parameters: dict[str, float]) -> list[ir.Node]:
    """The nodes, followed by the activation unless its name is empty."""
    return [*parts, ir.node(activation, [parts[-1].outputs[0]], parameters)] if activation else parts


def _text(node: ir.Node, name: str) -> str:
    attribute = node.attributes.get(name)
    return attribute.as_string() if attribute is not None else ""


_SPLITS: dict[str, Callable[[ir.Node], list[ir.Node]]] = {
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
}
