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


def test_initializers_that_an_old_file_does_not_list_as_inputs() -> None:
    """ONNX Runtime runs such a file; the converter finds no initializers in it."""
    model = nets.mlp(opset=9)
    model.ir_version = 3
    converted, modified = applied(convert_opset.apply, model, 13)
    assert modified
    assert converted.graph.initializer == model.graph.initializer
