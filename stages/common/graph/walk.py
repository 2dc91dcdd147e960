"""Walking and editing a model: its graphs with their paths, constants, and quantized operators."""

import re
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

MICROSOFT = "com.microsoft"

_QUANTIZED = re.compile(
    r"(De)?[Qq]uantizeLinear|DynamicQuantize.+|.+Integer(ToFloat)?|Q(Attention|EmbedLayerNormalization|Gemm|MoE)"
    r"|Q(Linear|Ordered).+|MatMul(NBits|Bnb4)|GatherBlockQuantized"
)
"""Operators with quantized operands, of ONNX and of ONNX Runtime."""


def is_quantized(op_type: str) -> bool:
    """Whether an operator occurs only in quantized models, in any format."""
    return _QUANTIZED.fullmatch(op_type) is not None


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node: of the main graph, of subgraphs, and of local functions."""
    for container in (model.graph, *model.functions.values()):
        yield from container.all_nodes()


def paths(model: ir.Model) -> dict[ir.Graph, str]:
    """Every graph, outer ones first, with its path: empty for the main graph, else such as `If_3.then_branch`."""
    listed: dict[ir.Graph, str] = {}

    def visit(graph: ir.Graph, path: str) -> None:
        listed[graph] = path
        for number, node in enumerate(graph):
            for name, body in subgraphs(node):
                label = f"{node.name or f'{node.op_type}_{number}'}.{name}"
                visit(body, f"{path}/{label}" if path else label)

    visit(model.graph, "")
    return listed


def subgraphs(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """The graphs in the attributes of a node, by attribute name."""
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.GRAPH:
            yield name, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for number, graph in enumerate(attribute.as_graphs()):
                yield f"{name}[{number}]", graph


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of a constant, else None: an initializer that is also an input can be overridden by the caller."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def default(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The default value of an optional input of the model; None for any other value."""
    return value.const_value if value is not None and value.is_initializer() and value.is_graph_input() else None


def only_reader(value: ir.Value) -> ir.Node | None:
    """The only node that reads a value, once and in the same graph; None for other values and for graph outputs."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    producer = value.producer()
    node: ir.Node = uses[0].node
    return node if producer is None or node.graph is producer.graph else None


def name_of(value: ir.Value | None) -> str:
    """The name of a value; empty for an omitted optional input."""
    return (value.name or "") if value is not None else ""


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """An input of a node; None if it is omitted."""
    return node.inputs[index] if index < len(node.inputs) else None


def number(node: ir.Node, name: str, default_: float) -> float:
    """The value of a numeric attribute, or `default_` if the node lacks it."""
    attribute = node.attributes.get(name)
    return default_ if attribute is None else float(attribute.value)


def integers(value: ir.Value | None) -> list[int]:
    """The elements of a constant tensor of integers; empty if the value is not constant."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return [int(item) for item in tensor.numpy().reshape(-1)] if tensor is not None else []


def add_initializer(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """Add a constant to a graph."""
    tensor = ir.tensor(values, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def remove_unused(model: ir.Model) -> None:
    """Remove the nodes and initializers that nothing uses, in every graph."""
    RemoveUnusedNodesPass()(model)
    for graph in model.graph.subgraphs():
        for name, value in list(graph.initializers.items()):
            if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
                del graph.initializers[name]


def replace(nodes: list[ir.Node], replacements: list[ir.Node], outputs: list[ir.Value]) -> None:
    """Replace nodes of one graph by others, which are inserted at the first of them.

    `outputs` take over the names and readers of the outputs of the last node.
    """
    first, last = nodes[0], nodes[-1]
    assert first.graph is not None
    ir.convenience.replace_nodes_and_values(first.graph, first, nodes, replacements, list(last.outputs), outputs)
