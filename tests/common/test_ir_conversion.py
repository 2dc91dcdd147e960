"""Protobuf to onnx-ir and back, with what onnx-ir cannot hold."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from stages.common.base.errors import StageError
from stages.common.model import ir_conversion, sessions
from tests.onnx_models import ir_model
from tests.quantize.running import graph, run


@given(st.permutations(range(6)))
def test_nodes_are_sorted_behind_what_they_need(order: list[int]) -> None:
    chain = [helper.make_node("Relu", [f"h{at}"], [f"h{at + 1}"], f"n{at}") for at in range(6)]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])] for name in ("h0", "h6")]
    shuffled = helper.make_graph([chain[at] for at in order], "g", *ends)
    assert [node.name for node in ir_model(helper.make_model(shuffled)).graph] == [f"n{at}" for at in range(6)]


def test_of_constants_of_one_name_the_last_counts_as_for_onnx_runtime() -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32(value)))
        for value in (1.0, 2.0)
    ]
    model = graph([*nodes, helper.make_node("Add", ["x", "c"], ["y"])], {"x": (2,)}, {"y": (2,)}, {})
    x = {"x": np.zeros(2, np.float32)}
    expected, actual = (
        run(sessions.open_session(source), x)["y"] for source in (model.SerializeToString(), ir_model(model))
    )
    np.testing.assert_array_equal(actual, expected)


def test_an_output_of_maps_keeps_its_type() -> None:
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = graph([node], {"x": ("n", 2)}, {"y": None}, {}, opset_imports=imports)
    kind = model.graph.output[0].type.sequence_type.elem_type.map_type
    kind.key_type, kind.value_type.tensor_type.elem_type = TensorProto.INT64, TensorProto.FLOAT
    model.graph.output[0].type.ClearField("tensor_type")
    kind = model.graph.output[0].type.sequence_type.elem_type.map_type
    kind.key_type, kind.value_type.tensor_type.elem_type = TensorProto.INT64, TensorProto.FLOAT
    converted = ir_conversion.to_proto(ir_model(model).clone())
    assert converted.graph.output == model.graph.output


def test_a_graph_that_gives_one_value_twice_is_refused() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])]
    with pytest.raises(StageError, match=r"not valid ONNX: .*'y'.*Export it again"):
        ir_model(graph(nodes, {"x": (2,)}, {"y": (2,)}, {}))


def test_looking_at_a_constant_changes_no_bytes() -> None:
    """A search reads many constants, and the replay of its plan must give the same bytes."""
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32(2)))
    model = ir_model(graph([constant, helper.make_node("Mul", ["x", "c"], ["y"])], {"x": (2,)}, {"y": (2,)}, {}))
    before = ir_conversion.to_proto(model).SerializeToString()
    assert ir.convenience.get_const_tensor(model.graph[0].outputs[0]) is not None
    assert ir_conversion.to_proto(model).SerializeToString() == before
