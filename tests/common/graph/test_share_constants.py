"""A constant that two branches compute is stored once, in the main graph."""

import numpy as np
from onnx import GraphProto, TensorProto, helper

from stages.common.graph.passes import compute_constants, share_constants
from tests.onnx_models import applied, opened
from tests.quantize.running import graph, normal, run

X = {"x": normal(4, 16)}


def test_a_constant_that_two_branches_compute_is_stored_once_for_both() -> None:
    def branch(label: str) -> GraphProto:
        nodes = [
            helper.make_node("Transpose", ["T"], [f"{label}_W"]),
            helper.make_node("MatMul", ["x", f"{label}_W"], [f"{label}_y"]),
        ]
        return helper.make_graph(
            nodes, label, [], [helper.make_tensor_value_info(f"{label}_y", TensorProto.FLOAT, None)]
        )

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["flag"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch("then"), else_branch=branch("else")),
    ]
    model = graph(nodes, {"x": ("n", 16)}, {"y": None}, {"T": normal(8, 16), "zero": np.zeros((), np.float32)})
    _, modified = applied(compute_constants.apply, model)
    assert not modified  # in each branch it would be stored twice
    folded, modified = applied(share_constants.apply, model)
    assert modified
    assert "Transpose" not in {node.op_type for node in folded.graph.node}
    assert [tensor.name for tensor in folded.graph.initializer] == ["zero", "else_W_1"]  # once, for both
    assert not any(g.node[0].op_type == "Transpose" for a in folded.graph.node[-1].attribute for g in [a.g])
    expected, actual = (run(opened(candidate), X)["y"] for candidate in (model, folded))
    np.testing.assert_array_equal(expected, actual)
