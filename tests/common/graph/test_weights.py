"""Which nodes have a weight."""

from onnx import helper

from stages.common.graph.weights import weighted_nodes
from tests.onnx_models import ir_model
from tests.quantize.running import graph, normal


def test_reading_the_shape_of_a_weight_is_not_a_use_of_it() -> None:
    nodes = [helper.make_node("Shape", ["W"], ["s"], "shape"), helper.make_node("MatMul", ["x", "W"], ["y"], "dense")]
    model = graph(nodes, {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": normal(16, 8)})
    assert [node.name for node in weighted_nodes(ir_model(model))] == ["dense"]
