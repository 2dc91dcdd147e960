"""Walking a model: every graph in it, subgraphs too, with the constants that a node can see from where it stands."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto


@dataclass(frozen=True, eq=False)
class Scope:
    """One graph of the model: the main one, or a body of If, Loop, Scan and the like.

    Attributes:
        graph: the graph itself.
        path: where it stands: empty for the main graph, else node and attribute, e.g. `If_3.then_branch`.
        outer: the scope around it, whose values its nodes may use by name.
    """

    graph: GraphProto
    path: str
    outer: "Scope | None"

    @cached_property
    def _initializers(self) -> dict[str, TensorProto]:
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def _variables(self) -> set[str]:
        """Names given a value here by a node or a caller; they hide outer values of the same name."""
        made = {name for node in self.graph.node for name in node.output}
        return made | {each.name for each in self.graph.input}

    def constant(self, name: str) -> TensorProto | None:
        """The initializer that `name` means here; None if it is no constant.

        An initializer that is listed as an input may be overridden by the caller, so it is none.
        """
        if name in self._variables:
            return None
        if name in self._initializers:
            return self._initializers[name]
        return self.outer.constant(name) if self.outer else None

    def default(self, name: str) -> TensorProto | None:
        """The initializer of an input of the model: what `name` means unless the caller gives a value; else None."""
        if self.outer:
            return None if name in self._variables else self.outer.default(name)
        return self._initializers.get(name) if name in {each.name for each in self.graph.input} else None


def scopes(model: ModelProto) -> list[Scope]:
    """Every graph of the model, outer ones first, in the order of their nodes."""
    found: list[Scope] = []

    def visit(scope: Scope) -> None:
        found.append(scope)
        for number, node in enumerate(scope.graph.node):
            for attribute, graph in subgraphs(node):
                label = f"{node.name or f'{node.op_type}_{number}'}.{attribute}"
                visit(Scope(graph, f"{scope.path}/{label}" if scope.path else label, scope))

    visit(Scope(model.graph, "", None))
    return found


def subgraphs(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """The graphs in the attributes of `node`, with the names of the attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            for number, graph in enumerate(attribute.graphs):
                yield f"{attribute.name}[{number}]", graph


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node: of the main graph, of subgraphs, and of the bodies of local functions."""

    def below(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
        for node in nodes:
            yield node
            for _, graph in subgraphs(node):
                yield from below(graph.node)

    yield from below(model.graph.node)
    for function in model.functions:
        yield from below(function.node)


class Names:
    """Names that nothing in the model has yet, for values and nodes alike; deterministic."""

    def __init__(self, model: ModelProto) -> None:
        self._taken: set[str] = set()
        for scope in scopes(model):
            graph = scope.graph
            for listed in (graph.initializer, graph.input, graph.output):
                self._taken.update(each.name for each in listed)
            for node in graph.node:
                self._taken.update((node.name, *node.input, *node.output))

    def fresh(self, stem: str) -> str:
        """`stem` if it is free, else `stem_1`, `stem_2` and so on; taken from now on."""
        name, number = stem, 0
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name


def copy(model: ModelProto) -> ModelProto:
    """A deep copy, whatever the size (serialisation would stop at 2 GB)."""
    duplicate = ModelProto()
    duplicate.CopyFrom(model)
    return duplicate


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Make `nodes`, some of which may stand in `graph`, its nodes."""
    # Copied first: deleting frees those that are to stay.
    copies = []
    for node in nodes:
        duplicate = NodeProto()
        duplicate.CopyFrom(node)
        copies.append(duplicate)
    del graph.node[:]
    graph.node.extend(copies)


def sort_nodes(graph: GraphProto) -> None:
    """Put every node behind those it takes values from, as ONNX demands and ONNX Runtime does not."""
    made_by = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before = {
        index: {made_by[name] for name in _needs(node) if name in made_by} for index, node in enumerate(graph.node)
    }
    if any(other > index for index, others in before.items() for other in others):
        replace_nodes(graph, [graph.node[index] for index in TopologicalSorter(before).static_order()])


def _needs(node: NodeProto) -> set[str]:
    return {*node.input, *(name for _, body in subgraphs(node) for name in used_names(body))}


def used_names(graph: GraphProto) -> set[str]:
    """Every value that the graph and those inside use or return."""
    names = {each.name for each in graph.output}
    for node in graph.node:
        names.update(node.input)
        for _, body in subgraphs(node):
            names |= used_names(body)
    return names


def attribute(node: NodeProto, name: str, default: float) -> float:
    """The value of a number attribute, or `default` where the node has none."""
    for each in node.attribute:
        if each.name == name:
            value: float = onnx.helper.get_attribute_value(each)
            return value
    return default


def opset(model: ModelProto, domain: str = "") -> int | None:
    """The version of `domain` that the model imports; the default domain also goes by `ai.onnx`."""
    wanted = {"", "ai.onnx"} if domain in ("", "ai.onnx") else {domain}
    return next((each.version for each in model.opset_import if each.domain in wanted), None)


def remove_unused_initializers(model: ModelProto, names: set[str]) -> None:
    """Remove those of `names` that nothing uses any more, in whatever graph they stand."""
    drop = names - used_names(model.graph)
    for scope in scopes(model):
        for index in reversed(range(len(scope.graph.initializer))):
            if scope.graph.initializer[index].name in drop:
                del scope.graph.initializer[index]
