"""The opset is converted where a method needs it, and only there."""

import numpy as np
import pytest
from onnx import helper

from stages.common.graph.passes import convert_opset
from tests.onnx_models import applied, opened
from tests.quantize import nets
from tests.quantize.running import graph, normal, run


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


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("operator", "opset", "scale"), [("Upsample", 9, 2), ("Upsample", 9, 1.5), ("Resize", 10, 2), ("Resize", 10, 0.6)]
)
def test_resizing_samples_as_before(operator: str, opset: int, mode: str, scale: float) -> None:
    """Segmentation models that PyTorch exported before opset 11; the converter alone changes their answers."""
    nodes = [helper.make_node(operator, ["x", "scales"], ["y"], mode=mode)]
    scales = {"scales": np.array([1, 1, scale, scale], np.float32)}
    model = graph(nodes, {"x": ("n", 2, 7, 10)}, {"y": ("n", 2, "h", "w")}, scales, opset)
    converted, _ = applied(convert_opset.apply, model, 13)
    feed = {"x": normal(3, 2, 7, 10)}
    np.testing.assert_allclose(run(opened(converted), feed)["y"], run(opened(model), feed)["y"], atol=1e-6)
