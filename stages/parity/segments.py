"""The pieces of an INT8 graph between the tensors that it shares with fp32, and a switch between the two for each.

Quantizing rewrites what lies between two activations and keeps the names of the activations. So a piece of the INT8
graph that ends in a shared tensor has a counterpart in fp32 that ends in the same one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

_KEPT = "fp32/"
_DROPPED = "int8/"


@dataclass(frozen=True)
class Segment:
    """The nodes that make one shared tensor from other shared tensors and constants.

    Attributes:
        output: the shared tensor that it makes.
        inputs: the shared tensors and graph inputs that it reads, sorted.
        nodes: places of its nodes in the graph, ascending.
    """

    output: str
    inputs: tuple[str, ...]
    nodes: tuple[int, ...]


def shared_tensors(fp32: GraphProto, int8: GraphProto) -> set[str]:
    """Names of what nodes of both graphs make: where the graphs can be cut."""
    return {name for node in fp32.node for name in node.output if name} & {
        name for node in int8.node for name in node.output if name
    }


def segments(graph: GraphProto, shared: set[str]) -> dict[str, Segment]:
    """The segment of each shared tensor, in the order of the graph.

    Left out are those that hold a subgraph: what its body reads from outside cannot be cut.
    """
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    fed = {each.name for each in graph.input} - {each.name for each in graph.initializer}
    found = {}
    for name in sorted(shared, key=lambda each: (makers[each], each)):
        inputs, nodes, waiting = set(), set(), [makers[name]]
        while waiting:
            place = waiting.pop()
            if place in nodes:
                continue
            nodes.add(place)
            for read in graph.node[place].input:
                if read in shared or read in fed:
                    inputs.add(read)
                elif read in makers:
                    waiting.append(makers[read])
        if name not in inputs and not any(_has_subgraph(graph.node[place]) for place in nodes):
            found[name] = Segment(name, tuple(sorted(inputs)), tuple(sorted(nodes)))
    return found


def is_quantized(node: NodeProto) -> bool:
    """Whether a node belongs to the arithmetic of a quantized model, of whatever format."""
    kind = node.op_type
    return any(part in kind for part in ("uantize", "Integer", "NBits")) or kind.startswith(
        ("QLinear", "QGemm", "QAtt")
    )


def switched(int8: ModelProto, fp32: ModelProto, pieces: Mapping[str, Iterable[Segment]]) -> ModelProto:
    """The INT8 model with a switch at pieces of it: a bool input by which their outputs are those of fp32.

    With a switch on, the model is what quantizing gives where the nodes of its pieces are excluded. One session can
    so try any set of nodes.

    Args:
        int8: the model to change, left as it is.
        fp32: the model that the segments were found in.
        pieces: of fp32, by the name of their switch.
    """
    copy = ModelProto()
    copy.CopyFrom(int8)
    graph = copy.graph
    known = {each.domain for each in copy.opset_import}
    copy.opset_import.extend(each for each in fp32.opset_import if each.domain not in known)
    weights = {each.name: each for each in fp32.graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    constants: set[str] = set()
    for switch, listed in pieces.items():
        graph.input.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
        for piece in listed:
            nodes = [fp32.graph.node[place] for place in piece.nodes]
            constants |= {name for node in nodes for name in node.input if name in weights}
            made = {name: f"{_KEPT}{piece.output}/{name}" for node in nodes for name in node.output if name}
            names = made | {name: _KEPT + name for name in constants}
            graph.node.extend(_renamed(node, names, f"{_KEPT}{piece.output}/") for node in nodes)
            old = makers[piece.output].output
            old[list(old).index(piece.output)] = _DROPPED + piece.output
            choice = [switch, made[piece.output], _DROPPED + piece.output]
            graph.node.append(helper.make_node("Where", choice, [piece.output], name=f"{switch}/{piece.output}"))
    for name in sorted(constants):
        tensor = graph.initializer.add()
        tensor.CopyFrom(weights[name])
        tensor.name = _KEPT + name
    return copy


def weighted_nodes(model: ModelProto, piece: Segment) -> Iterator[NodeProto]:
    """The nodes of a segment that read a constant of two dimensions or more."""
    matrices = {each.name for each in model.graph.initializer if len(each.dims) >= 2}
    for node in model.graph.node:
        if node.op_type == "Constant" and any(
            each.name == "value" and len(each.t.dims) >= 2 for each in node.attribute
        ):
            matrices.update(node.output)
    for place in piece.nodes:
        node = model.graph.node[place]
        if matrices.intersection(node.input):
            yield node


def _has_subgraph(node: NodeProto) -> bool:
    return any(each.HasField("g") or each.graphs for each in node.attribute)


def _renamed(node: NodeProto, names: Mapping[str, str], prefix: str) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = prefix + node.name if node.name else ""
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    return copy
