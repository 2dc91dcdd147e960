"""Data that does not fit a model is refused, with a message on the input and the data; generated inputs fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from stages.common.base.errors import StageError
from stages.common.data import evaldata, feeding
from stages.common.model import sessions

Shape = Sequence[Any]


def session_of(*inputs: tuple[str, int, Shape]) -> ort.InferenceSession:
    """A model that returns its inputs."""
    infos = [helper.make_tensor_value_info(*entry) for entry in inputs]
    outs = [helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    graph = helper.make_graph(nodes, "identity", infos, outs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return sessions.open_session(onnx.ModelProto.SerializeToString(model))


def entry(name: str, dtype: str, *shape: int) -> evaldata.EvalInput:
    return evaldata.EvalInput(name, dtype, shape, Path())


X = ("x", TensorProto.FLOAT, ["n", 4])


def test_data_that_fits_passes() -> None:
    feeding.check_fit(session_of(X), [entry("x", "float32", 4)], "samples")
    feeding.check_fit(session_of(X), [entry("x", "float32", 7, 4)], "feeds")
    text = session_of(("t", TensorProto.STRING, [None, 1]))
    feeding.check_fit(text, [entry("t", "<U9", 1)], "samples")
    feeding.check_fit(session_of(("rate", TensorProto.INT64, [])), [entry("rate", "int64")], "feeds")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([entry("y", "float32", 4)], "no array for the model input 'x'; it holds 'y'"),
        ([], "no array for the model input 'x'; it holds nothing"),
        ([entry("x", "float32", 4), entry("z", "float32", 4)], "holds 'z', which is not an input of the model"),
        ([entry("x", "float64", 4)], r"expects float32, but the evaluation data is float64\. .*astype\(np\.float32\)"),
        ([entry("x", "<U3", 4)], "'x' expects float32, but the evaluation data is text"),
        ([entry("x", "float32", 5)], r"'x' expects the shape \[n, 4\], but the evaluation data has \[n, 5\]"),
        ([entry("x", "float32", 2, 4)], r"the evaluation data has \[n, 2, 4\] .* set export\.eval_layout to feeds"),
    ],
)
def test_data_that_does_not_fit_is_refused(data: list[evaldata.EvalInput], words: str) -> None:
    with pytest.raises(StageError, match=words):
        feeding.check_fit(session_of(X), data, "samples")


def test_a_type_that_numpy_lacks_is_refused() -> None:
    wanted = session_of(("b", TensorProto.BFLOAT16, [1]))
    with pytest.raises(StageError, match=r"'b' has the type tensor\(bfloat16\)"):
        feeding.check_fit(wanted, [entry("b", "float32")], "samples")


def test_a_long_list_of_names_is_cut_short() -> None:
    data = [entry(f"x{i}", "float32", 4) for i in range(12)]
    with pytest.raises(StageError, match=r"'x7' and 4 more"):
        feeding.check_fit(session_of(X), data, "samples")


def test_the_model_prescribes_the_batch_or_the_caller_chooses_it() -> None:
    free, fixed = session_of(X), session_of(("x", TensorProto.FLOAT, [3, 4]))
    assert feeding.feed_batch(free, "samples", 8) == 8
    assert feeding.feed_batch(fixed, "samples", 8) == 3
    assert feeding.feed_batch(fixed, "feeds", 8) == 1
    two = session_of(("x", TensorProto.FLOAT, [1, 4]), ("state", TensorProto.FLOAT, [2, 1, 4]))
    with pytest.raises(StageError, match=r"set export\.eval_layout to feeds"):
        feeding.feed_batch(two, "samples", 8)


@pytest.mark.parametrize(
    ("samples", "batch", "filled"),
    [([7, 9], 5, [7, 9, 7, 9, 7]), ([7, 9], 2, [7, 9]), ([7, 9, 11], 2, [7, 9, 11]), ([4], 3, [4, 4, 4])],
)
def test_samples_repeat_up_to_the_batch(samples: list[int], batch: int, filled: list[int]) -> None:
    indices = evaldata.fill(np.array(samples, dtype=np.int64), batch)
    assert indices.tolist() == filled
    assert indices.dtype == np.int64


def test_every_dtype_named_can_be_fed() -> None:
    for kind, dtype in feeding._DTYPES.items():
        tensor = TensorProto.DataType.Value(kind.upper())
        session = session_of(("x", tensor, [1]))
        array = np.array(["a"], dtype=object) if dtype == "text" else np.zeros(1, dtype)
        (out,) = sessions.run(session, {"x": array}, name="it")
        assert out.dtype == array.dtype


class TestGeneratedFeed:
    def test_each_input_has_its_type_and_a_shape_that_fits(self) -> None:
        session = session_of(
            ("image", TensorProto.FLOAT, ["batch", 3, "height"]),
            ("state", TensorProto.DOUBLE, [2, "batch", 4]),
            ("tokens", TensorProto.INT64, ["batch", "sequence"]),
            ("mask", TensorProto.BOOL, [7, "sequence"]),
            ("text", TensorProto.STRING, ["batch", 1]),
            ("rate", TensorProto.INT32, []),
        )
        feed = feeding.generated_feed(session, batch=5, seed=0)
        assert {name: array.shape for name, array in feed.items()} == {
            "image": (5, 3, feeding.FREE_DIM),
            "state": (2, 5, 4),
            "tokens": (5, feeding.FREE_DIM),
            "mask": (7, feeding.FREE_DIM),
            "text": (5, 1),
            "rate": (),
        }
        assert set(np.unique(feed["tokens"])) == {0, 1}
        assert len(session.run(None, feed)) == 6

    def test_the_same_seed_gives_the_same_values(self) -> None:
        first, second = (feeding.generated_feed(session_of(X), 2, seed=1)["x"] for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_a_type_that_numpy_lacks_is_an_error(self) -> None:
        session = session_of(("x", TensorProto.BFLOAT16, [1]))
        with pytest.raises(StageError, match=r"generated for the model input 'x' of type tensor\(bfloat16\)"):
            feeding.generated_feed(session, 1, 0)
