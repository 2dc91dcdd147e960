"""Fresh names, and names for nodes."""

from onnx import ModelProto, helper

from stages.common.graph.names import Names
from stages.common.graph.passes import name_nodes
from tests.onnx_models import applied, ir_model
from tests.quantize.running import graph, normal


def _model(opset_version: int = 17) -> ModelProto:
    nodes = [
        helper.make_node("Transpose", ["T"], ["W"]),
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return graph(nodes, {"x": ("n", 16)}, {"y": ("n", 8)}, {"T": normal(8, 16)}, opset_version)


def test_fresh_names_are_free_in_every_graph() -> None:
    model = _model()
    free = Names(ir_model(model))
    assert [free.fresh("W"), free.fresh("W"), free.fresh("new"), free.fresh("new")] == ["W_1", "W_2", "new", "new_1"]


def test_unnamed_and_doubled_names_become_unique() -> None:
    model = _model()
    model.graph.node[0].name = model.graph.node[1].name = "dense"
    named, modified = applied(name_nodes.apply, model)
    assert modified
    assert [node.name for node in named.graph.node] == ["dense", "dense_1", "Relu_2"]
    assert not applied(name_nodes.apply, named)[1]
