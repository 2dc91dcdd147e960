"""Which initializers are removed from the inputs."""

from onnx import TensorProto, helper, numpy_helper

from stages.common.graph.passes import drop_listed_initializers
from tests.common.graph.models import dense
from tests.onnx_models import applied
from tests.quantize.running import normal


def test_inputs_listed_on_purpose_stay() -> None:
    model = dense()
    model.graph.initializer.append(numpy_helper.from_array(normal(3), "other"))
    model.graph.input.append(helper.make_tensor_value_info("T", TensorProto.FLOAT, (8, 16)))
    assert not applied(drop_listed_initializers.apply, model)[1]
    model.ir_version = 3
    dropped, modified = applied(drop_listed_initializers.apply, model)
    assert modified
    assert [value.name for value in dropped.graph.input] == ["x"]
