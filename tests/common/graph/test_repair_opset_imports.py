"""Which opset domains a repaired model imports."""

from stages.common.graph.passes import repair_opset_imports
from tests.common.graph.models import dense
from tests.onnx_models import applied


def test_the_domain_of_microsoft_is_imported_where_it_is_used() -> None:
    model = dense()
    model.graph.node[2].domain = "com.microsoft"
    repaired, _ = applied(repair_opset_imports.apply, model)
    assert [(opset.domain, opset.version) for opset in repaired.opset_import] == [("", 17), ("com.microsoft", 1)]
