"""Nodes and weights that lead to no output are removed; those that the caller may override stay."""

from onnx import TensorProto, helper, numpy_helper

from stages.common.graph.passes import remove_unused
from tests.common.graph.models import dense
from tests.onnx_models import applied
from tests.quantize.running import normal


def test_weights_that_lead_to_no_output_are_removed() -> None:
    model = dense()
    assert not applied(remove_unused.apply, model)[1]
    model.graph.initializer.extend(numpy_helper.from_array(normal(16, 9), name) for name in ("left", "given"))
    model.graph.input.append(helper.make_tensor_value_info("given", TensorProto.FLOAT, (16, 9)))
    model.graph.node.append(helper.make_node("MatMul", ["x", "left"], ["unread"]))
    cleaned, modified = applied(remove_unused.apply, model)
    assert modified
    assert [node.op_type for node in cleaned.graph.node] == ["Transpose", "MatMul", "Relu"]
    assert {tensor.name for tensor in cleaned.graph.initializer} == {"T", "given"}
