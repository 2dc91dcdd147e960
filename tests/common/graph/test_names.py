"""Fresh names, and names for nodes."""

from stages.common.graph.names import Names
from stages.common.graph.passes import name_nodes
from tests.common.graph.models import dense
from tests.onnx_models import applied, ir_model


def test_fresh_names_are_free_in_every_graph() -> None:
    model = dense()
    free = Names(ir_model(model))
    assert [free.fresh("W"), free.fresh("W"), free.fresh("new"), free.fresh("new")] == ["W_1", "W_2", "new", "new_1"]


def test_unnamed_and_doubled_names_become_unique() -> None:
    model = dense()
    model.graph.node[0].name = model.graph.node[1].name = "dense"
    named, modified = applied(name_nodes.apply, model)
    assert modified
    assert [node.name for node in named.graph.node] == ["dense", "dense_1", "Relu_2"]
    assert not applied(name_nodes.apply, named)[1]
