"""States of Loop and Scan that no iteration changes: the body reads the value from outside instead.

TensorFlow hands a while loop everything that its body reads, so the weights of a Keras RNN are states of a Loop. As
such they are constants to no one: ONNX Runtime cannot pack them, and nothing can quantize them.
"""

from typing import NamedTuple

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.walk import remove_unused

_SCAN_OF_STATES = 9
"""Before this opset, the states of Scan come after its sequence lengths, and their first axis is the batch."""


class _State(NamedTuple):
    """Where a state is: among the inputs and outputs of the body, and among those of the node."""

    source: int
    result: int
    first: int
    last: int


def apply(model: ir.Model) -> PassResult:
    """Take such states off the loops, inner loops first."""
    modified = False
    for node in reversed(list(model.graph.all_nodes())):
        if states := [state for state in _states(model, node) if _is_unchanged(node, state)]:
            _take_off(node, states)
            modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)


def _states(model: ir.Model, node: ir.Node) -> list[_State]:
    if node.domain:
        return []
    if node.op_type == "Loop":
        return [_State(at, at - 1, at, at - 2) for at in range(2, len(node.inputs))]
    if node.op_type == "Scan" and model.opset_imports.get("", 0) >= _SCAN_OF_STATES:
        states = len(node.inputs) - node.attributes["num_scan_inputs"].as_int()
        return [_State(at, at, at, at) for at in range(states)]
    return []


def _is_unchanged(node: ir.Node, state: _State) -> bool:
    """Whether the body returns a state as it is, and returns it nowhere else."""
    if node.inputs[state.first] is None:
        return False
    body = node.attributes["body"].as_graph()
    value, returned = body.inputs[state.source], body.outputs[state.result]
    while returned is not value:
        producer = returned.producer()
        if producer is None or producer.op_type != "Identity" or producer.domain or producer.graph is not body:
            return False
        assert producer.inputs[0] is not None
        returned = producer.inputs[0]
    collected = any(output is value for at, output in enumerate(body.outputs) if at != state.result)
    return not collected and not node.outputs[state.last].is_graph_output()


def _take_off(node: ir.Node, states: list[_State]) -> None:
    body, graph = node.attributes["body"].as_graph(), node.graph
    for state in reversed(states):
        body.outputs.pop(state.result)
    for state in states:
        value = node.inputs[state.first]
        assert value is not None
        ir.convenience.replace_all_uses_with([body.inputs[state.source], node.outputs[state.last]], [value, value])
    for state in reversed(states):
        body.inputs.pop(state.source)
    firsts, lasts = {state.first for state in states}, {state.last for state in states}
    kept = [output for at, output in enumerate(node.outputs) if at not in lasts]
    smaller = ir.Node(
        node.domain,
        node.op_type,
        [value for at, value in enumerate(node.inputs) if at not in firsts],
        [node.attributes.pop(name) for name in list(node.attributes)],
        num_outputs=len(kept),
        name=node.name,
    )
    assert graph is not None
    ir.convenience.replace_nodes_and_values(graph, node, [node], [smaller], kept, smaller.outputs)
