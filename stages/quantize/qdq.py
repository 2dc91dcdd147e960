"""Where 8-bit values flow through a graph: the pairs of QuantizeLinear and DequantizeLinear that static puts there.

ONNX Runtime recognises DequantizeLinear, operator, QuantizeLinear at load and runs the three as one INT8 kernel.
A convolution has such a kernel only with an 8-bit output. MatMul and Gemm have one that gives floats, so their outputs
stay float unless INT8 follows, or a Relu or Clip inside the model, which ONNX Runtime draws into a Gemm before it looks
for INT8 kernels. Between them lie operators that can pass 8-bit values on, which saves the way to float and back: those
that move values (and keep their scale), and those that compute new ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from onnx import GraphProto, NodeProto, helper

from stages.quantize.graphs import Names, replace_nodes, subgraphs, used_names

MOVERS = frozenset({"Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Between INT8 nodes, these hand on 8-bit values as they are; only their first input holds values."""

COMPUTERS = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"})
"""Between INT8 nodes, these have INT8 kernels; all their inputs hold values, none may be constant."""

FUSED_AFTER = frozenset({"Clip", "Relu"})
"""These become part of the range of what comes before them."""


@dataclass
class Plan:
    """Which nodes work on 8-bit values, and which tensors are quantized for it.

    Attributes:
        nodes: indices in the main graph of the nodes with weights, and of those between them.
        tensors: the quantized tensors, each with the one whose scale it shares (itself, but behind a mover).
        narrow: those of them whose producer gives 8-bit values, so that every consumer reads those.
    """

    nodes: set[int] = field(default_factory=set)
    tensors: dict[str, str] = field(default_factory=dict)
    narrow: set[str] = field(default_factory=set)


class Flow:
    """The main graph as producers and consumers."""

    def __init__(self, graph: GraphProto) -> None:
        self.nodes = list(graph.node)
        self._consumers: dict[str, list[int]] = {}
        for at, node in enumerate(self.nodes):
            for name in _read_by(node):
                self._consumers.setdefault(name, []).append(at)
        self._outputs = {each.name for each in graph.output}
        self._constants = {each.name for each in graph.initializer}

    def plan(self, chosen: set[int], allowed: set[str] | None = None) -> Plan:
        """The plan in which these nodes with weights are quantized, and all that can be between them.

        Args:
            chosen: indices of nodes.
            allowed: the tensors that may be quantized; None for any.
        """
        between = {at for at, node in enumerate(self.nodes) if self._passes(node)} - chosen
        if allowed is not None:
            between = {at for at in between if {*self.values(at), self.tail(at)} <= allowed}
        while True:
            inside = chosen | between
            made = {self.tail(at) for at in inside}
            lost = {at for at in between if not self._enclosed(at, made, inside)}
            if not lost:
                return self._plan(chosen, between)
            between -= lost

    def quantized_by(self, at: int) -> list[str]:
        """The tensors that quantizing the node with a weight at `at` quantizes."""
        return [*self.values(at), *([self.tail(at)] if self._gives_8_bits(at) else [])]

    def only_reader(self, name: str) -> int | None:
        """The node that reads a tensor, if one does so alone and the tensor is no output of the model."""
        readers = self._consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._outputs else None

    def tail(self, at: int) -> str:
        """The tensor that node `at` gives once what is fused after it is done."""
        name: str = self.nodes[at].output[0]
        reader = self.only_reader(name)
        if reader is not None and self.nodes[reader].op_type in FUSED_AFTER:
            name = self.nodes[reader].output[0]
        return name

    def values(self, at: int) -> list[str]:
        """The inputs of node `at` that hold activations, if it is a node with a weight or one between."""
        node = self.nodes[at]
        return list(node.input) if node.op_type in COMPUTERS else [node.input[0]]

    def _gives_8_bits(self, at: int) -> bool:
        """Whether a node with a weight has an INT8 kernel only with an 8-bit output."""
        node, tail = self.nodes[at], self.tail(at)
        fused_as_floats = tail != node.output[0] and tail not in self._outputs
        return node.op_type == "Conv" or (node.op_type == "Gemm" and fused_as_floats)

    def _passes(self, node: NodeProto) -> bool:
        if node.op_type in MOVERS:
            return node.input[0] not in self._constants
        return node.op_type in COMPUTERS and not any(name in self._constants for name in node.input)

    def _enclosed(self, at: int, made: set[str], inside: set[int]) -> bool:
        tail = self.tail(at)
        return (
            all(name in made for name in self.values(at))
            and tail not in self._outputs
            and all(consumer in inside for consumer in self._consumers.get(tail, []))
        )

    def _plan(self, chosen: set[int], between: set[int]) -> Plan:
        plan = Plan(chosen | between)
        for at in sorted(plan.nodes):
            node, tail = self.nodes[at], self.tail(at)
            for name in self.values(at):
                plan.tensors.setdefault(name, name)
            if at in between or self._gives_8_bits(at):
                moved = at in between and node.op_type in MOVERS
                plan.tensors[tail] = plan.tensors[node.input[0]] if moved else tail
                plan.narrow.add(tail)
        return plan


@dataclass(frozen=True)
class Scale:
    """Names of the initializers with a tensor's scale and zero point."""

    scale: str
    zero_point: str


def rewrite(graph: GraphProto, plan: Plan, scales: Mapping[str, Scale], names: Names) -> None:
    """Quantize the tensors of `plan` in the main graph, and let its nodes read the quantized ones.

    Args:
        graph: changed in place.
        plan: from `Flow` over this graph.
        scales: of each tensor of the plan that has a scale of its own.
        names: of the model.
    """
    outputs = {each.name for each in graph.output}
    read_as: dict[str, str] = {}

    def quantized(name: str, made_as: str) -> Iterator[NodeProto]:
        """The pair after the tensor `made_as`; from then on `name` can be read as 8-bit values."""
        scale = scales[plan.tensors[name]]
        stored = names.fresh(f"{name}_quantized")
        read_as[name] = name if made_as != name else names.fresh(f"{name}_dequantized")
        for kind, source, target in (
            ("QuantizeLinear", made_as, stored),
            ("DequantizeLinear", stored, read_as[name]),
        ):
            label = names.fresh(f"{name}_{kind}")
            yield helper.make_node(kind, [source, scale.scale, scale.zero_point], [target], name=label)

    rewritten: list[NodeProto] = []
    for each in graph.input:
        if each.name in plan.tensors:
            rewritten.extend(quantized(each.name, each.name))
    for at, node in enumerate(graph.node):
        kept = NodeProto()
        kept.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in read_as and (at in plan.nodes or name in plan.narrow):
                kept.input[index] = read_as[name]
        pairs: list[NodeProto] = []
        for index, name in enumerate(node.output):
            if name in plan.tensors:
                # An output of the model keeps its name, so what it is made from gets another.
                made_as = names.fresh(f"{name}_float") if name in outputs and name in plan.narrow else name
                kept.output[index] = made_as
                pairs.extend(quantized(name, made_as))
        rewritten.extend([kept, *pairs])
    replace_nodes(graph, rewritten)


def _read_by(node: NodeProto) -> set[str]:
    """What a node reads, its subgraphs included."""
    bodies = (used_names(body) for _, body in subgraphs(node))
    return {name for name in node.input if name}.union(*bodies)
