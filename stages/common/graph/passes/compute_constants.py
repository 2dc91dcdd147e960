"""Weights that nodes compute from constants: behind Constant, Transpose, Identity, Cast, Reshape and the like."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.base.errors import StageError
from stages.common.graph.names import Names
from stages.common.graph.shapes import fixed_numbers
from stages.common.graph.walk import add_initializer, constant, remove_unused, subgraphs
from stages.common.graph.weights import weight_inputs
from stages.common.model import sessions

GROWTH = 2
"""A weight more than this many times the size of what it is computed from stays computed (Expand, ConstantOfShape)."""

_SMALL = 4096
_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def apply(model: ir.Model) -> PassResult:
    """Turn weights that are computed from constants alone into initializers of their graph, under their names.

    What several graphs compute alike (both branches of an If) stays as it is: see `share_constants`.
    """
    names = Names(model)
    modified = False
    for array, alike in computed_weights(model):
        graphs = graphs_of(alike)
        if len(graphs) == 1:
            store(graphs.pop(), array, alike, names)
            modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)


def computed_weights(model: ir.Model) -> list[tuple[np.ndarray, list[ir.Value]]]:
    """Each float weight that nodes compute from constants alone, with the values of any graph that are equal to it."""
    fixed = fixed_numbers(model)
    known: dict[ir.Value, bool] = dict.fromkeys(fixed, True)
    computed: dict[tuple[tuple[int, ...], str, bytes], tuple[np.ndarray, list[ir.Value]]] = {}
    for value in list(dict.fromkeys(_weights(model.graph))):
        producer = value.producer()
        if producer is None or value in fixed or not is_known(value, known):
            continue
        values = compute(model, value, fixed)
        if values and values[0].dtype.kind == "f":
            array = np.ascontiguousarray(values[0])
            key = (array.shape, str(array.dtype), hashlib.sha256(array.data).digest())
            computed.setdefault(key, (array, []))[1].append(value)
    return list(computed.values())


def graphs_of(values: Iterable[ir.Value]) -> set[ir.Graph]:
    """The graphs whose nodes compute the values."""
    return {
        node.graph for value in values if (node := value.producer()) is not None and isinstance(node.graph, ir.Graph)
    }


def store(graph: ir.Graph, array: np.ndarray, alike: list[ir.Value], names: Names) -> None:
    """Store an array in a graph, in place of the values that are equal to it, under the name of the first."""
    name = alike[0].name or ""
    for value in alike:
        value.name = names.fresh(f"{value.name}_computed")  # its node is removed once nothing reads it
    made = add_initializer(graph, names.fresh(name), array)
    for value in alike:
        ir.convenience.replace_all_uses_with(value, made)


def _weights(graph: ir.Graph) -> Iterator[ir.Value]:
    """What the nodes with a weight, in the graph and those inside, have at the place of a weight or a bias."""
    for node in graph:
        if weight_inputs(node) is not None:
            inputs = node.inputs if node.op_type != "Gather" else node.inputs[:1]
            yield from (value for value in inputs if value is not None)
        for _, body in subgraphs(node):
            yield from _weights(body)


def is_known(value: ir.Value | None, known: dict[ir.Value, bool]) -> bool:
    """Whether a value is computed from constants alone, by nodes of any scope that give the same in every run."""
    if value is None or constant(value) is not None:
        return True
    if value not in known:
        node = value.producer()
        known[value] = False  # a graph input, or the output of a loop over itself
        if node is not None and not node.domain and node.op_type not in _RANDOM and not any(subgraphs(node)):
            known[value] = all(is_known(source, known) for source in node.inputs) and not any(
                output.is_graph_output() for output in node.outputs
            )
    return known[value]


def compute(model: ir.Model, value: ir.Value, fixed: Mapping[ir.Value, np.ndarray]) -> list[np.ndarray]:
    """The value, in a list; empty where it fails, or is much larger than what it is computed from.

    Args:
        model: that it is in.
        value: computed from constants and from `fixed` alone, see `is_known`.
        fixed: integers, see `fixed_numbers`.
    """
    graph = ir.Graph([], [], nodes=[], opset_imports=model.opset_imports, name="constants")
    copies: dict[ir.Value, ir.Value] = {}
    source_bytes = 0

    def copied(source: ir.Value) -> ir.Value:
        nonlocal source_bytes
        if source in copies:
            return copies[source]
        tensor = ir.tensor(fixed[source]) if source in fixed else constant(source)
        name = f"value_{len(copies)}"
        if tensor is not None:
            copies[source] = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor
            )
            graph.register_initializer(copies[source])
            source_bytes += tensor.nbytes
            return copies[source]
        node = source.producer()
        assert node is not None
        inputs = [None if operand is None else copied(operand) for operand in node.inputs]
        copy = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs))
        source_bytes += sum(
            attribute.as_tensor().nbytes
            for attribute in node.attributes.values()
            if attribute.type == ir.AttributeType.TENSOR
        )
        for output, made in zip(node.outputs, copy.outputs, strict=True):
            made.name = f"{name}_{len(copies)}" if output.name else ""
            copies[output] = made
        graph.append(copy)
        return copies[source]

    graph.outputs.append(copied(value))
    part = ir.Model(graph, ir_version=model.ir_version)
    try:
        values: list[np.ndarray] = sessions.run(sessions.open_session(part), {}, name=value.name or "")
    except StageError:
        return []
    small_enough = values[0].nbytes <= GROWTH * source_bytes + _SMALL
    return values if small_enough else []
