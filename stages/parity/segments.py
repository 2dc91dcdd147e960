"""Cutting an INT8 graph at the tensors that it shares with fp32, so that each quantized piece can be tried by itself.

Quantizing rewrites what lies between two activations and keeps the names of the activations. So a piece of the INT8
graph that ends in a shared tensor has a counterpart in fp32 that ends in the same one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper

_FED = "fed/"
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
    return any(part in kind for part in ("Quantize", "Integer", "NBits")) or kind.startswith(
        ("QLinear", "QGemm", "QAtt")
    )


def exposed(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """The model with these tensors as its only outputs; ONNX Runtime finds out their types."""
    copy = _copied(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def cut(model: ModelProto, pieces: Sequence[Segment], samples: Mapping[str, np.ndarray]) -> ModelProto:
    """A model of these segments alone: each reads from outside what it would read from another one.

    The inputs are called as `fed` says, the outputs as in the model.

    Args:
        model: the one that the segments were found in.
        pieces: of it.
        samples: an array for each tensor that they read, for its type and rank.
    """
    graph = model.graph
    places = sorted({place for piece in pieces for place in piece.nodes})
    reads = {name for piece in pieces for name in piece.inputs}
    nodes = [_renamed(graph.node[place], {name: fed(name) for name in reads}) for place in places]
    used = {name for node in nodes for name in node.input}
    return helper.make_model(
        helper.make_graph(
            nodes,
            "cut",
            [_info(fed(name), samples[name]) for name in sorted(reads)],
            [onnx.ValueInfoProto(name=piece.output) for piece in pieces],
            initializer=[each for each in graph.initializer if each.name in used],
            sparse_initializer=[each for each in graph.sparse_initializer if each.values.name in used],
        ),
        opset_imports=model.opset_import,
        functions=model.functions,
        ir_version=model.ir_version,
    )


def fed(name: str) -> str:
    """What a tensor is called where it is fed to a cut model."""
    return _FED + name


def grafted(int8: ModelProto, fp32: ModelProto, pieces: Iterable[Segment]) -> ModelProto:
    """The INT8 model with these segments of fp32 in place of its own: what excluding their nodes gives.

    Args:
        int8: the model to change, left as it is.
        fp32: the model that the segments were found in.
        pieces: of fp32.
    """
    copy = _copied(int8)
    graph = copy.graph
    known = {each.domain for each in copy.opset_import}
    copy.opset_import.extend(each for each in fp32.opset_import if each.domain not in known)
    weights = {each.name: each for each in fp32.graph.initializer}
    added: set[str] = set()
    for piece in pieces:
        nodes = [fp32.graph.node[place] for place in piece.nodes]
        inner = {name for node in nodes for name in node.output if name} - {piece.output}
        constants = {name for node in nodes for name in node.input if name in weights}
        names = {name: f"{_KEPT}{piece.output}/{name}" for name in inner} | {name: _KEPT + name for name in constants}
        for name in sorted(constants - added):
            tensor = graph.initializer.add()
            tensor.CopyFrom(weights[name])
            tensor.name = names[name]
        added |= constants
        place = next(place for place, node in enumerate(graph.node) if piece.output in node.output)
        old = graph.node[place]
        old.output[list(old.output).index(piece.output)] = _DROPPED + piece.output
        for offset, node in enumerate(nodes, start=1):
            graph.node.insert(place + offset, _renamed(node, names, names, prefix=f"{_KEPT}{piece.output}/"))
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


def _renamed(
    node: NodeProto, inputs: Mapping[str, str], outputs: Mapping[str, str] | None = None, prefix: str = ""
) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = prefix + node.name if node.name else ""
    copy.input[:] = [inputs.get(name, name) for name in node.input]
    copy.output[:] = [(outputs or {}).get(name, name) for name in node.output]
    return copy


def _copied(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
