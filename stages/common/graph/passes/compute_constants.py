"""Weights that nodes compute from constants, such as Constant, Transpose, Identity, Cast and Reshape."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.base.errors import StageError
from stages.common.graph.names import Names
from stages.common.graph.shapes import fixed_numbers
from stages.common.graph.walk import add_initializer, constant, only_reader, remove_unused, subgraphs
from stages.common.graph.weights import weight_inputs
from stages.common.model import sessions

GROWTH = 2
"""A weight larger than this many times its sources stays computed (Expand, ConstantOfShape)."""

_FOLDED_BEHIND = frozenset({"Add", "BatchNormalization", "Mul"})
"""Behind an operator with a weight, their constants are scales and biases, which methods fold into it."""

_SMALL = 4096
_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def apply(model: ir.Model) -> PassResult:
    """Turn weights computed from constants alone into initializers of their graph, with the same names.

    Weights that several graphs compute (both branches of an If) stay as they are: see `share_constants`.
    """
    names = Names(model)
    modified = False
    for array, alike in computed_weights(model):
        graphs = graphs_of(alike)
        if len(graphs) == 1:
            store(graphs.pop(), array, alike, names, alike[0].name or "")
            modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)


def computed_weights(model: ir.Model) -> list[tuple[np.ndarray, list[ir.Value]]]:
    """Each float weight that nodes compute from constants alone, with the values, in any graph, that equal it."""
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
    """The graphs that compute the values."""
    return {
        node.graph for value in values if (node := value.producer()) is not None and isinstance(node.graph, ir.Graph)
    }


def store(graph: ir.Graph, array: np.ndarray, alike: list[ir.Value], names: Names, name: str) -> None:
    """Store an array in a graph under this name, replacing the values equal to it."""
    for value in alike:
        value.name = names.fresh(f"{value.name}_computed")  # its node is removed once nothing reads it
    initializer = add_initializer(graph, name, array)
    for value in alike:
        ir.convenience.replace_all_uses_with(value, initializer)


def _weights(graph: ir.Graph) -> Iterator[ir.Value]:
    """Inputs of nodes, in the graph and its subgraphs, that may be weights, or biases and scales behind them."""
    for node in graph:
        if weight_inputs(node) is not None:
            inputs = node.inputs if node.op_type != "Gather" else node.inputs[:1]
            yield from (value for value in inputs if value is not None)
            reader = only_reader(node.outputs[0])
            while reader is not None and reader.op_type in _FOLDED_BEHIND:
                yield from (value for value in reader.inputs if value is not None)
                reader = only_reader(reader.outputs[0])
        for _, body in subgraphs(node):
            yield from _weights(body)


def is_known(value: ir.Value | None, known: dict[ir.Value, bool]) -> bool:
    """Whether a value is computed from constants alone, by deterministic nodes of any scope."""
    if value is None or constant(value) is not None:
        return True
    if value not in known:
        node = value.producer()
        known[value] = False  # a graph input, or a value that depends on itself
        if node is not None and not node.domain and node.op_type not in _RANDOM and not any(subgraphs(node)):
            known[value] = all(is_known(source, known) for source in node.inputs) and not any(
                output.is_graph_output() for output in node.outputs
            )
    return known[value]


def compute(model: ir.Model, value: ir.Value, fixed: Mapping[ir.Value, np.ndarray]) -> list[np.ndarray]:
    """Compute a value for which `is_known` holds; `fixed` is from `fixed_numbers`.

    Returns:
        The array in a list, which is empty if it cannot be computed or is much larger than its sources.
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
        for output, output_copy in zip(node.outputs, copy.outputs, strict=True):
            output_copy.name = f"{name}_{len(copies)}" if output.name else ""
            copies[output] = output_copy
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
