"""Where 8-bit values flow through a graph: the pairs of QuantizeLinear and DequantizeLinear that static puts there.

ONNX Runtime recognises DequantizeLinear, operator, QuantizeLinear at load and runs the three as one INT8 kernel.
A convolution has such a kernel only with an 8-bit output. MatMul and Gemm have one that gives floats, so their outputs
stay float unless INT8 follows, or a Relu or Clip inside the model, which ONNX Runtime draws into a Gemm before it looks
for INT8 kernels. Between them are operators that can pass 8-bit values on, which saves the way to float and back: those
that move values (and keep their scale), and those that compute new ones.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from stages.common.graph.names import Names
from stages.common.graph.walk import constant, only_reader

MOVERS = frozenset({"Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Between INT8 nodes, these hand on 8-bit values as they are; only their first input holds values."""

COMPUTERS = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"})
"""Between INT8 nodes, these have INT8 kernels; all their inputs hold values, none may be constant."""

FUSED_AFTER = frozenset({"Clip", "Relu"})
"""These become part of the range of what comes before them."""


@dataclass
class Placement:
    """Which nodes work on 8-bit values, and which tensors are quantized for it.

    Attributes:
        nodes: the nodes with weights, and those between them.
        tensors: the quantized tensors, each with the one whose scale it shares (itself, except behind a mover).
        narrow: those of them whose producer gives 8-bit values, so that every consumer reads those.
    """

    nodes: set[ir.Node] = field(default_factory=set)
    tensors: dict[ir.Value, ir.Value] = field(default_factory=dict)
    narrow: set[ir.Value] = field(default_factory=set)


@dataclass(frozen=True)
class Scale:
    """The initializers with a tensor's scale and zero point."""

    scale: ir.Value
    zero_point: ir.Value


def place(graph: ir.Graph, chosen: Collection[ir.Node], allowed: Collection[ir.Value] | None = None) -> Placement:
    """Quantize these nodes with weights, and all nodes between them that can be.

    Args:
        graph: the main graph.
        chosen: of its nodes.
        allowed: the tensors that may be quantized; None for any.
    """
    between = {node for node in graph if _passes(node)} - set(chosen)
    if allowed is not None:
        between = {node for node in between if {*_values(node), tail(node)} <= set(allowed)}
    while True:
        inside = between | set(chosen)
        made = {tail(node) for node in inside}
        lost = {node for node in between if not _enclosed(node, made, inside)}
        if not lost:
            return _placed(graph, inside, between)
        between -= lost


def quantized_by(node: ir.Node) -> list[ir.Value]:
    """The tensors that quantizing a node with a weight quantizes."""
    return [*_values(node), *([tail(node)] if _gives_8_bits(node) else [])]


def tail(node: ir.Node) -> ir.Value:
    """The tensor that a node gives once what is fused after it is done."""
    value: ir.Value = node.outputs[0]
    reader = only_reader(value)
    return reader.outputs[0] if reader is not None and reader.op_type in FUSED_AFTER else value


def rewrite(graph: ir.Graph, placement: Placement, scales: Mapping[ir.Value, Scale], names: Names) -> None:
    """Quantize the tensors of a placement in the main graph, and let its nodes read the quantized ones.

    Args:
        graph: changed in place.
        placement: over this graph.
        scales: of each tensor of the placement that has a scale of its own.
        names: of the model.
    """
    made = [value for node in graph for value in node.outputs]
    for value in [*graph.inputs, *made]:
        if value in placement.tensors:
            _quantize(graph, value, placement, scales[placement.tensors[value]], names)


def _quantize(graph: ir.Graph, value: ir.Value, placement: Placement, scale: Scale, names: Names) -> None:
    """Put the pair behind a tensor."""
    name, producer, narrow = value.name or "", value.producer(), value in placement.narrow
    readers = [use for use in value.uses() if narrow or use.node in placement.nodes]
    stored, read = ir.Value(name=names.fresh(f"{name}_quantized")), ir.Value(shape=value.shape, type=value.type)
    pair = [
        ir.node(kind, [source, scale.scale, scale.zero_point], outputs=[target], name=names.fresh(f"{name}_{kind}"))
        for kind, source, target in (("QuantizeLinear", value, stored), ("DequantizeLinear", stored, read))
    ]
    if narrow and value.is_graph_output():
        # An output of the model keeps its name, so what it is made from gets another.
        value.name, read.name = names.fresh(f"{name}_float"), name
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = read
    else:
        read.name = names.fresh(f"{name}_dequantized")
    for node, index in readers:
        node.replace_input_with(index, read)
    if producer is None:
        graph.insert_before(graph[0], pair)
    else:
        graph.insert_after(producer, pair)


def _values(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that hold activations, if it is a node with a weight or one between."""
    inputs = node.inputs if node.op_type in COMPUTERS else node.inputs[:1]
    return [value for value in inputs if value is not None]


def _gives_8_bits(node: ir.Node) -> bool:
    """Whether a node with a weight has an INT8 kernel only with an 8-bit output."""
    last = tail(node)
    fused_as_floats = last is not node.outputs[0] and not last.is_graph_output()
    return node.op_type == "Conv" or (node.op_type == "Gemm" and fused_as_floats)


def _passes(node: ir.Node) -> bool:
    if node.op_type in MOVERS:
        return constant(node.inputs[0]) is None
    return node.op_type in COMPUTERS and all(value is not None and constant(value) is None for value in node.inputs)


def _enclosed(node: ir.Node, made: set[ir.Value], inside: set[ir.Node]) -> bool:
    last = tail(node)
    return (
        all(value in made for value in _values(node))
        and not last.is_graph_output()
        and all(consumer in inside for consumer in last.consumers())
    )


def _placed(graph: ir.Graph, inside: set[ir.Node], between: set[ir.Node]) -> Placement:
    made = Placement(inside)
    for node in graph:
        if node not in inside:
            continue
        for value in _values(node):
            made.tensors.setdefault(value, value)
        if node in between or _gives_8_bits(node):
            last, first = tail(node), node.inputs[0]
            moved = node in between and node.op_type in MOVERS and first is not None
            made.tensors[last] = made.tensors[first] if moved and first is not None else last
            made.narrow.add(last)
    return made
