"""Where static puts QuantizeLinear and DequantizeLinear pairs: which tensors of a graph hold 8-bit values.

ONNX Runtime recognizes DequantizeLinear, operator, QuantizeLinear at load and runs the three as one INT8 kernel. A
convolution has such a kernel only with an 8-bit output. MatMul and Gemm also have one with a float output, so theirs
stay float unless an INT8 operator follows, or a Relu or Clip inside the model, which ONNX Runtime fuses into a Gemm
before it looks for INT8 kernels. Operators between those with weights can pass 8-bit values on, which saves the
conversion to float and back: some only move values (and keep their scale), others compute new ones.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from stages.common.graph.names import Names
from stages.common.graph.walk import constant, only_reader

MOVERS = frozenset({"Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Between INT8 nodes, these pass 8-bit values on unchanged; only their first input holds activations."""

COMPUTERS = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"})
"""Between INT8 nodes, these have INT8 kernels; all their inputs hold activations, none may be constant."""

FUSED_AFTER = frozenset({"Clip", "Relu"})
"""These become part of the quantized range of the operator before them."""


@dataclass
class Placement:
    """Which nodes work on 8-bit values, and which tensors are quantized for them.

    Attributes:
        nodes: the nodes with weights, and those between them.
        tensors: the quantized tensors, and the tensor whose scale each one uses (itself, except after a mover).
        narrow: the quantized tensors whose producer has an 8-bit output, so that all their consumers read 8 bits.
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
    """Place the nodes to quantize: those chosen, and the nodes between them that can pass 8-bit values on.

    Args:
        graph: the main graph.
        chosen: nodes with weights.
        allowed: the tensors that may be quantized; None for all.
    """
    between = {node for node in graph if _passes(node)} - set(chosen)
    if allowed is not None:
        between = {node for node in between if {*_values(node), tail(node)} <= set(allowed)}
    while True:
        inside = between | set(chosen)
        outputs = {tail(node) for node in inside}
        exposed = {node for node in between if not _enclosed(node, outputs, inside)}
        if not exposed:
            return _placed(graph, inside, between)
        between -= exposed


def quantized_by(node: ir.Node) -> list[ir.Value]:
    """The tensors that are quantized if a node with a weight is."""
    return [*_values(node), *([tail(node)] if _gives_8_bits(node) else [])]


def tail(node: ir.Node) -> ir.Value:
    """The output of a node, or of the operator that is fused after it."""
    value: ir.Value = node.outputs[0]
    reader = only_reader(value)
    return reader.outputs[0] if reader is not None and reader.op_type in FUSED_AFTER else value


def rewrite(graph: ir.Graph, placement: Placement, scales: Mapping[ir.Value, Scale], names: Names) -> None:
    """Insert the pairs of a placement, and let its nodes read the quantized tensors.

    Args:
        graph: the main graph; changed in place.
        placement: a placement in this graph.
        scales: the scales of the tensors that have their own.
        names: the names that the model uses.
    """
    outputs = [value for node in graph for value in node.outputs]
    for value in [*graph.inputs, *outputs]:
        if value in placement.tensors:
            _quantize(graph, value, placement, scales[placement.tensors[value]], names)


def _quantize(graph: ir.Graph, value: ir.Value, placement: Placement, scale: Scale, names: Names) -> None:
    """Insert the pair after a tensor."""
    name, producer, narrow = value.name or "", value.producer(), value in placement.narrow
    readers = [use for use in value.uses() if narrow or use.node in placement.nodes]
    stored, read = ir.Value(name=names.fresh(f"{name}_quantized")), ir.Value(shape=value.shape, type=value.type)
    pair = [
        ir.node(kind, [source, scale.scale, scale.zero_point], outputs=[target], name=names.fresh(f"{name}_{kind}"))
        for kind, source, target in (("QuantizeLinear", value, stored), ("DequantizeLinear", stored, read))
    ]
    if narrow and value.is_graph_output():
        # An output of the model keeps its name, so the float tensor gets another one.
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
    """The inputs that hold activations, of a node with a weight or a node between."""
    inputs = node.inputs if node.op_type in COMPUTERS else node.inputs[:1]
    return [value for value in inputs if value is not None]


def _gives_8_bits(node: ir.Node) -> bool:
    """Whether a node with a weight has an INT8 kernel only with an 8-bit output."""
    last = tail(node)
    fused_as_floats = last is not node.outputs[0] and not last.is_graph_output()
    return node.op_type == "Conv" or (node.op_type == "Gemm" and fused_as_floats)


def _passes(node: ir.Node) -> bool:
    """Whether a node without a weight can pass 8-bit values on."""
    if node.op_type in MOVERS:
        return constant(node.inputs[0]) is None
    return node.op_type in COMPUTERS and all(value is not None and constant(value) is None for value in node.inputs)


def _enclosed(node: ir.Node, outputs: set[ir.Value], inside: set[ir.Node]) -> bool:
    """Whether all that a node reads comes from nodes inside, and only they read its output."""
    last = tail(node)
    return (
        all(value in outputs for value in _values(node))
        and not last.is_graph_output()
        and all(consumer in inside for consumer in last.consumers())
    )


def _placed(graph: ir.Graph, inside: set[ir.Node], between: set[ir.Node]) -> Placement:
    """The placement of these nodes: which tensors they read and return in 8 bits."""
    placement = Placement(inside)
    for node in graph:
        if node not in inside:
            continue
        for value in _values(node):
            placement.tensors.setdefault(value, value)
        if node in between or _gives_8_bits(node):
            last, first = tail(node), node.inputs[0]
            moved = node in between and node.op_type in MOVERS and first is not None
            placement.tensors[last] = placement.tensors[first] if moved and first is not None else last
            placement.narrow.add(last)
    return placement
