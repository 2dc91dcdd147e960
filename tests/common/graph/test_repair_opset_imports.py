"""Which domains are imported afterwards."""

from onnx import ModelProto, helper

from stages.common.graph.passes import repair_opset_imports
from tests.onnx_models import applied
from tests.quantize.running import graph, normal


def _model(opset_version: int = 17) -> ModelProto:
    nodes = [
        helper.make_node("Transpose", ["T"], ["W"]),
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return graph(nodes, {"x": ("n", 16)}, {"y": ("n", 8)}, {"T": normal(8, 16)}, opset_version)


def test_the_domain_of_microsoft_is_imported_where_it_is_used() -> None:
    model = _model()
    model.graph.node[2].domain = "com.microsoft"
    repaired, _ = applied(repair_opset_imports.apply, model)
    assert [(each.domain, each.version) for each in repaired.opset_import] == [("", 17), ("com.microsoft", 1)]
