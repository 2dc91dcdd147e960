"""Products of one-hot vectors and a table become lookups: the same bits for any index."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from stages.quantize.rewrites import look_up
from tests.onnx_models import applied, opened
from tests.quantize.nets import normal

DEPTH, WIDTH = 7, 3


def embedding(
    *, reshaped: bool, measured: bool = False, values: tuple[float, float] = (0, 1), kind: int = TensorProto.INT32
) -> ModelProto:
    """OneHot and MatMul with a table [7, 3], with the vectors reshaped to rows in between if `reshaped`."""
    constants = {
        "depth": np.array(DEPTH, helper.tensor_dtype_to_np_dtype(kind)), "values": np.array(values, np.float32),
        "table": normal(DEPTH, WIDTH), "rows": np.array([-1, DEPTH], np.int64),
    }  # fmt: skip
    nodes = [helper.make_node("OneHot", ["x", "depth", "values"], ["v"], name="hot")]
    if reshaped:
        nodes.append(helper.make_node("Reshape", ["v", "rows"], ["r"], name="rows"))
    nodes.append(helper.make_node("MatMul", ["r" if reshaped else "v", "table"], ["p"], name="product"))
    nodes.append(helper.make_node("Neg", ["p"], ["y"], name="last"))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if measured:
        nodes.append(helper.make_node("Shape", ["v"], ["s"], name="size"))
        outputs.append(helper.make_tensor_value_info("s", TensorProto.INT64, None))
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", kind, ["N", "L"])], outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@given(
    indices=st.lists(st.integers(-DEPTH - 3, DEPTH + 3), min_size=1, max_size=12), reshaped=st.booleans(),
    measured=st.booleans(), long=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_the_same_bits_for_any_index(indices: list[int], reshaped: bool, measured: bool, long: bool) -> None:
    kind, dtype = (TensorProto.INT64, np.int64) if long else (TensorProto.INT32, np.int32)
    model = embedding(reshaped=reshaped, measured=measured, kind=kind)
    rewritten, modified = applied(look_up.apply, model)
    assert modified
    left = Counter(node.op_type for node in rewritten.graph.node)
    assert left["OneHot"] == left["MatMul"] == 0
    feed = {"x": np.array([indices], dtype)}
    for before, after in zip(opened(model).run(None, feed), opened(rewritten).run(None, feed), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "model",
    [embedding(reshaped=False, values=(0, 2)), embedding(reshaped=False, kind=TensorProto.FLOAT)],
    ids=["another value than one", "indices of floats"],
)
def test_others_stay(model: ModelProto) -> None:
    assert not applied(look_up.apply, model)[1]


def test_vectors_that_are_read_otherwise_stay() -> None:
    model = embedding(reshaped=False)
    model.graph.output.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, None))
    assert not applied(look_up.apply, model)[1]
