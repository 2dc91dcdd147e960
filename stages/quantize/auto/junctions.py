"""The tensors between nodes with choices, and the operators there that can work on 8 bits or in blocked layout."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from stages.common.graph.walk import constant
from stages.quantize.auto.choices import BLOCKED, STATIC
from stages.quantize.auto.one_node import main_output
from stages.quantize.auto.problem import FLOAT, Junction, Option
from stages.quantize.methods.static import qdq

_PASS_ON = qdq.MOVERS | qdq.FUSED_AFTER

BETWEEN = (
    Option(FLOAT, 0.0, 0.0, 0),
    Option(BLOCKED, 0.0, 0.0, 0, BLOCKED, BLOCKED),
    Option(STATIC, 0.0, 0.0, 0, STATIC, STATIC),
)
"""The forms that an operator without a weight can work in; it takes the form of the nodes around it."""


@dataclass(frozen=True)
class Tensor:
    """A junction without the cost of its conversions: the names of its producers, its consumers and its values."""

    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    open: bool
    values: tuple[str, ...]


def between(graph: ir.Graph) -> list[str]:
    """The names of the operators without a weight that have INT8 kernels."""
    return [node.name or "" for node in graph if _computes(node)]


def tensors(graph: ir.Graph, names: Sequence[str]) -> list[Tensor]:
    """The tensors that the named nodes output or read as activations.

    Values before and after an operator that passes values on (Reshape, MaxPool, Relu, ...) count as one tensor.
    """
    wanted = set(names)
    leader: dict[ir.Value, ir.Value] = {}

    def find(value: ir.Value) -> ir.Value:
        while leader.get(value, value) is not value:
            value = leader[value]
        return value

    for node in graph:
        if _passes_on(node):
            leader[node.outputs[0]] = find(_first(node))
    producers: dict[ir.Value, list[str]] = {}
    consumers: dict[ir.Value, list[str]] = {}
    floats: set[ir.Value] = {find(value) for value in graph.inputs}
    for node in graph:
        own = node.name in wanted
        for value in node.outputs:
            if own and value is main_output(node):
                producers.setdefault(find(value), []).append(node.name or "")
            elif not _passes_on(node):
                floats.add(find(value))
        for index, value_ in enumerate(node.inputs):
            if value_ is None or constant(value_) is not None or _passes_on(node):
                continue
            if own and (index == 0 or _computes(node)):
                consumers.setdefault(find(value_), []).append(node.name or "")
            else:
                floats.add(find(value_))
    floats |= {find(value) for value in graph.outputs}
    for body in graph.subgraphs():
        floats |= {find(value) for node in body for value in node.inputs if value is not None}
    members: dict[ir.Value, list[str]] = {}
    for value in [*graph.inputs, *(value for node in graph for value in node.outputs)]:
        members.setdefault(find(value), []).append(value.name or "")
    return [
        Tensor(
            tuple(dict.fromkeys(producers.get(value, ()))),
            tuple(dict.fromkeys(consumers.get(value, ()))),
            value in floats,
            tuple(members.get(value, ())),
        )
        for value in dict.fromkeys([*producers, *consumers])
    ]


Price = Callable[[Sequence[str]], tuple[Mapping[str, float], Mapping[str, float]]]
"""The microseconds to convert a tensor into each form and back, by the names of its values."""


def priced(tensors_: Sequence[Tensor], names: Sequence[str], price: Price) -> tuple[Junction, ...]:
    """The junctions of a problem over the named nodes."""
    number = {name: place for place, name in enumerate(names)}
    return tuple(
        Junction(
            tuple(number[name] for name in tensor.producers),
            tuple(number[name] for name in tensor.consumers),
            tensor.open or not tensor.producers or not tensor.consumers,
            *price(tensor.values),
        )
        for tensor in tensors_
    )


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _passes_on(node: ir.Node) -> bool:
    return bool(
        node.op_type in _PASS_ON
        and node.domain == ""
        and node.inputs
        and node.inputs[0] is not None
        and constant(node.inputs[0]) is None
    )


def _computes(node: ir.Node) -> bool:
    return (
        node.op_type in qdq.COMPUTERS
        and node.domain == ""
        and all(value is not None and constant(value) is None for value in node.inputs)
    )
