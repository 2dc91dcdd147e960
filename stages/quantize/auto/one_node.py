"""Cut single nodes out of a model, to measure the time and the error of their choices."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.common.base.params import Quantize
from stages.common.graph.walk import add_initializer, constant, name_of
from stages.common.graph.weights import weighted_nodes
from stages.common.model.sessions import Feed
from stages.quantize.auto.choices import Choice
from stages.quantize.auto.mix import mixed
from stages.quantize.methods import Assignment
from stages.quantize.methods.static.ranges import Known


@dataclass(frozen=True)
class OneNode:
    """A node with its constants, and feeds for its other inputs.

    Attributes:
        model: a model of this node only.
        feeds: its inputs in the whole model, one feed each.
        outputs: its main output in the whole model, float32, one per feed.
        key: operator, attributes and shapes: equal for nodes that take the same time.
    """

    model: ir.Model
    feeds: tuple[Feed, ...]
    outputs: tuple[np.ndarray, ...]
    key: str

    @property
    def elements(self) -> tuple[int, int]:
        """Number of values in its activation and in its output, for one feed."""
        first = next(iter(self.feeds[0].values()))
        return first.size, self.outputs[0].size


def read_values(node: ir.Node) -> list[ir.Value]:
    """The values that a node reads, without constants and without repetition."""
    return list(dict.fromkeys(value for value in node.inputs if value is not None and constant(value) is None))


def main_output(node: ir.Node) -> ir.Value:
    """The first output that is read: of a recurrent layer, only the last state may be."""
    return next((value for value in node.outputs if value.uses() or value.is_graph_output()), node.outputs[0])


def cut_out(model: ir.Model, node: ir.Node, seen: list[Mapping[str, np.ndarray]]) -> OneNode:
    """Cut out a node of the main graph.

    Args:
        model: the model with the node.
        node: the node to cut out.
        seen: for each feed of the whole model, the arrays that the node reads and returns, by name.
    """
    read = read_values(node)
    inputs = {
        value: ir.Value(
            name=name_of(value),
            shape=ir.Shape([None] * seen[0][name_of(value)].ndim),
            type=ir.TensorType(ir.DataType.from_numpy(seen[0][name_of(value)].dtype)),
        )
        for value in read
    }
    copies: list[ir.Value | None] = []
    graph = ir.Graph(list(inputs.values()), [], nodes=[], name="one_node", opset_imports=dict(model.opset_imports))
    stored: dict[ir.Value, ir.Value] = {}
    for value in node.inputs:
        if value is None or value in inputs:
            copies.append(None if value is None else inputs[value])
            continue
        tensor = constant(value)
        assert tensor is not None
        if value not in stored:
            stored[value] = add_initializer(graph, name_of(value), tensor.numpy())
        copies.append(stored[value])
    main = main_output(node)
    first = seen[0][name_of(main)]
    output = ir.Value(name=name_of(main), type=ir.TensorType(ir.DataType.from_numpy(first.dtype)))
    output.shape = ir.Shape([None] * first.ndim)
    # An output that nothing reads keeps its name, as the operator may require it.
    outputs = [output if value is main else ir.Value(name=value.name) for value in node.outputs]
    graph.append(
        ir.Node(node.domain, node.op_type, copies, list(node.attributes.values()), name=node.name, outputs=outputs)
    )
    graph.outputs.append(output)
    feeds = tuple({name_of(value): array[name_of(value)] for value in read} for array in seen)
    arrays = tuple(array[name_of(main)] for array in seen)
    attributes = sorted(f"{name}={attribute.value}" for name, attribute in node.attributes.items())
    shapes = [
        str(feeds[0][name_of(value)].shape) if value in inputs else str(constant(value).shape)  # type: ignore[union-attr]
        for value in node.inputs
        if value is not None
    ]
    key = f"{node.domain}:{node.op_type} {' '.join(attributes)} {' '.join(shapes)}"
    return OneNode(ir.Model(graph, ir_version=model.ir_version), feeds, arrays, key)


def quantized(
    single: OneNode, choice: Choice, params: Quantize, rows: Mapping[str, np.ndarray]
) -> tuple[ir.Model | None, str]:
    """The model of a single node with a choice; None and the reason if the node cannot have it.

    Static is calibrated on every other feed, smoothing fitted to `rows` of the activation.
    """
    nodes = weighted_nodes(single.model)
    if not nodes:
        return None, "it has no constant weight"
    try:
        calibration = Known(lambda: iter(single.feeds[::2]), params.calibration.method, rows=rows)
        model, outcomes = mixed(single.model, [Assignment(nodes[0], params)], {nodes[0].name: choice.name}, calibration)
    except StageError as error:
        return None, str(error)
    outcome = outcomes[nodes[0].name]
    return (model, "") if outcome.quantized else (None, outcome.reason)
