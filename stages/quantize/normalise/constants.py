"""Weights that nodes compute from constants: behind Constant, Transpose, Identity, Cast, Reshape and the like."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from stages.common.base.errors import StageError
from stages.common.model import model_file, sessions
from stages.quantize.graphs import copy, remove_unused_initializers, replace_nodes, subgraphs, used_names
from stages.quantize.inventory import weight_inputs
from stages.quantize.normalise.shapes import fixed_numbers

GROWTH = 2
"""A weight more than this many times the size of what it is computed from stays computed (Expand, ConstantOfShape)."""

_SMALL = 4096
_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def fold(model: ModelProto) -> tuple[ModelProto, bool]:
    """Turn weights that are computed from constants alone into initializers of the same name, in every graph."""
    folded = copy(model)
    sources = _fold(folded, folded.graph, {}, fixed_numbers(folded))
    if not sources:
        return model, False
    remove_unused_initializers(folded, sources)
    return folded, True


def _fold(
    model: ModelProto, graph: GraphProto, outer: Mapping[str, TensorProto], fixed: Mapping[str, TensorProto]
) -> set[str]:
    """Fold in `graph` and the graphs inside; returns the names that were folded, and those they were computed from.

    Args:
        model: that `graph` is of.
        graph: changed in place.
        outer: the constants of the graphs around it.
        fixed: values that nodes of `graph` make, and that are constants all the same.
    """
    variables = {name for node in graph.node for name in node.output} | {each.name for each in graph.input}
    constants = {name: tensor for name, tensor in outer.items() if name not in variables}
    constants |= {tensor.name: tensor for tensor in graph.initializer if tensor.name not in variables}
    constants |= fixed
    producers = _constant_producers(graph, constants)
    touched: set[str] = set()
    for name in dict.fromkeys(_weights(graph)):
        if name not in producers or name in touched:
            continue
        ancestors = _ancestors({name}, producers)
        sources = {each for node in ancestors for each in node.input if each in constants and each not in producers}
        made = _compute(model, producers[name].output, ancestors, [constants[each] for each in sorted(sources)])
        graph.initializer.extend(made)
        constants |= {tensor.name: tensor for tensor in made}
        touched |= {tensor.name for tensor in made} | (sources if made else set())
    if touched:
        _remove(graph, touched, producers)
    for node in graph.node:
        for _, body in subgraphs(node):
            touched |= _fold(model, body, constants, {})
    return touched


def _constant_producers(graph: GraphProto, constants: Mapping[str, TensorProto]) -> dict[str, NodeProto]:
    """The nodes that compute from constants alone, by output. One that makes an output of the graph must stay."""
    outputs = {each.name for each in graph.output}
    producers: dict[str, NodeProto] = {}
    for node in graph.node:
        known = all(not name or name in constants or name in producers for name in node.input)
        pure = node.domain in ("", "ai.onnx") and node.op_type not in _RANDOM and not any(subgraphs(node))
        if known and pure and not outputs.intersection(node.output):
            producers.update(dict.fromkeys(node.output, node))
    return producers


def _weights(graph: GraphProto) -> Iterator[str]:
    """What the nodes with a weight, in the graph and those inside, have at the place of a weight or a bias."""
    for node in graph.node:
        places = weight_inputs(node)
        if places is not None:
            yield from node.input if node.op_type != "Gather" else node.input[:1]
        for _, body in subgraphs(node):
            yield from _weights(body)


def _ancestors(names: Iterable[str], producers: Mapping[str, NodeProto]) -> list[NodeProto]:
    """The nodes that `names` are computed by, in the order of the graph."""
    found: dict[str, NodeProto] = {}
    wanted = list(names)
    while wanted:
        node = producers.get(wanted.pop())
        if node is not None and node.output[0] not in found:
            found[node.output[0]] = node
            wanted.extend(node.input)
    return [found[output] for output in producers if output in found]


def _compute(
    model: ModelProto, names: Sequence[str], nodes: list[NodeProto], constants: list[TensorProto]
) -> list[TensorProto]:
    """The values of `names`; none where they fail, are no floats, or much larger than what they are computed from."""
    outputs = [helper.make_empty_tensor_value_info(name) for name in names if name]
    graph = helper.make_graph(nodes, "constants", [], outputs, constants)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        values = sessions.run(sessions.open_session(part, name=names[0]), {}, name=names[0])
    except StageError:
        return []
    if (
        values[0].dtype.kind != "f"
        or sum(each.nbytes for each in values) > GROWTH * model_file.weight_bytes(part) + _SMALL
    ):
        return []
    return [numpy_helper.from_array(each, output.name) for each, output in zip(values, outputs, strict=True)]


def _remove(graph: GraphProto, folded: set[str], producers: Mapping[str, NodeProto]) -> None:
    """Remove the nodes whose values are initializers now, and those that nothing needs any more."""
    needed = {each.name for each in graph.output}
    for node in graph.node:
        if node.output[0] not in producers:
            needed.update(node.input)
            for _, body in subgraphs(node):
                needed.update(used_names(body))
    left = {name: node for name, node in producers.items() if name not in folded}
    computing = {name for node in _ancestors(needed, left) for name in node.output}
    replace_nodes(graph, [node for node in graph.node if not set(node.output) & (producers.keys() - computing)])
