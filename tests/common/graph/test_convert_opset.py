"""The opset is converted where a method needs it, and only there."""

from stages.common.graph.passes import convert_opset
from tests.onnx_models import applied
from tests.quantize import nets


def test_metadata_and_ends_survive_and_no_shapes_are_added() -> None:
    model = nets.mlp(opset=11)
    model.metadata_props.add(key="author", value="someone")
    converted, modified = applied(convert_opset.apply, model, 13)
    assert modified
    assert converted.opset_import[0].version == 13
    assert converted.metadata_props == model.metadata_props
    assert converted.graph.input == model.graph.input
    assert converted.graph.output == model.graph.output
    assert converted.graph.value_info == model.graph.value_info
    assert converted.graph.initializer == model.graph.initializer
    assert not applied(convert_opset.apply, model, 11)[1]
