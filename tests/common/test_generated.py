import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from stages.common.base.errors import StageError
from stages.common.data.feeding import FREE_DIM, generated_feed
from tests.onnx_models import opened


def identity(**inputs: tuple[int, list[int | str]]) -> ModelProto:
    """A model that returns each of its inputs; types and shapes by name."""
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_", kind, shape) for name, (kind, shape) in inputs.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_"]) for name in inputs]
    graph = helper.make_graph(nodes, "identity", values, outputs)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def test_each_input_has_its_type_and_a_shape_that_fits() -> None:
    session = opened(
        identity(
            image=(TensorProto.FLOAT, ["batch", 3, "height"]),
            state=(TensorProto.DOUBLE, [2, "batch", 4]),
            tokens=(TensorProto.INT64, ["batch", "sequence"]),
            mask=(TensorProto.BOOL, [7, "sequence"]),
            text=(TensorProto.STRING, ["batch", 1]),
            rate=(TensorProto.INT32, []),
        )
    )
    feed = generated_feed(session, batch=5, seed=0)
    assert {name: array.shape for name, array in feed.items()} == {
        "image": (5, 3, FREE_DIM),
        "state": (2, 5, 4),
        "tokens": (5, FREE_DIM),
        "mask": (7, FREE_DIM),
        "text": (5, 1),
        "rate": (),
    }
    assert set(np.unique(feed["tokens"])) == {0, 1}
    assert len(session.run(None, feed)) == 6


def test_the_same_seed_gives_the_same_values() -> None:
    session = opened(identity(x=(TensorProto.FLOAT, ["n", 4])))
    first, second = (generated_feed(session, 2, seed=1)["x"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_type_that_numpy_lacks_is_an_error() -> None:
    session = opened(identity(x=(TensorProto.BFLOAT16, [1])))
    with pytest.raises(StageError, match=r"generated for the model input 'x' of type tensor\(bfloat16\)"):
        generated_feed(session, 1, 0)
