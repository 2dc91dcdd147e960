"""Data that do not fit a model are refused with the input, what it expects, and what was found."""

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
    """A model that passes every input on."""
    infos = [helper.make_tensor_value_info(*each) for each in inputs]
    outs = [helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    graph = helper.make_graph(nodes, "identity", infos, outs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return sessions.open_session(onnx.ModelProto.SerializeToString(model))


def entry(name: str, dtype: str, *shape: int) -> evaldata.EvalInput:
    return evaldata.EvalInput(name, dtype, shape, Path())


X = ("x", TensorProto.FLOAT, ["n", 4])


def test_fitting_data_pass() -> None:
    feeding.check_fit(session_of(X), [entry("x", "float32", 4)], "samples")
    feeding.check_fit(session_of(X), [entry("x", "float32", 7, 4)], "feeds")
    text = session_of(("t", TensorProto.STRING, [None, 1]))
    feeding.check_fit(text, [entry("t", "<U9", 1)], "samples")
    feeding.check_fit(session_of(("rate", TensorProto.INT64, [])), [entry("rate", "int64")], "feeds")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([entry("y", "float32", 4)], "no array for the model input 'x'; they hold 'y'"),
        ([], "no array for the model input 'x'; they hold nothing"),
        ([entry("x", "float32", 4), entry("z", "float32", 4)], "hold 'z', which is no input of the model"),
        ([entry("x", "float64", 4)], r"'x' expects float32, the data are float64\. .*astype\(np\.float32\)"),
        ([entry("x", "<U3", 4)], "'x' expects float32, the data are text"),
        ([entry("x", "float32", 5)], r"'x' expects the shape \[n, 4\], the data have \[n, 5\]"),
        ([entry("x", "float32", 2, 4)], r"the data have \[n, 2, 4\] .* set export\.eval_layout to feeds"),
    ],
)
def test_what_does_not_fit_is_named(data: list[evaldata.EvalInput], words: str) -> None:
    with pytest.raises(StageError, match=words):
        feeding.check_fit(session_of(X), data, "samples")


def test_a_type_that_numpy_has_not_is_refused() -> None:
    wanted = session_of(("b", TensorProto.BFLOAT16, [1]))
    with pytest.raises(StageError, match=r"'b' has the type tensor\(bfloat16\)"):
        feeding.check_fit(wanted, [entry("b", "float32")], "samples")


def test_many_names_are_cut_short() -> None:
    data = [entry(f"x{i}", "float32", 4) for i in range(12)]
    with pytest.raises(StageError, match=r"'x7' and 4 more"):
        feeding.check_fit(session_of(X), data, "samples")


def test_the_batch_is_what_the_model_prescribes_else_what_is_wanted() -> None:
    free, fixed = session_of(X), session_of(("x", TensorProto.FLOAT, [3, 4]))
    assert feeding.feed_batch(free, "samples", 8) == 8
    assert feeding.feed_batch(fixed, "samples", 8) == 3
    assert feeding.feed_batch(fixed, "feeds", 8) == 1
    two = session_of(("x", TensorProto.FLOAT, [1, 4]), ("state", TensorProto.FLOAT, [2, 1, 4]))
    with pytest.raises(StageError, match=r"set export\.eval_layout to feeds"):
        feeding.feed_batch(two, "samples", 8)


def test_every_dtype_named_can_be_fed() -> None:
    for kind, dtype in feeding._DTYPES.items():
        tensor = TensorProto.DataType.Value(kind.upper())
        session = session_of(("x", tensor, [1]))
        array = np.array(["a"], dtype=object) if dtype == "text" else np.zeros(1, dtype)
        (out,) = sessions.run(session, {"x": array}, name="it")
        assert out.dtype == array.dtype
