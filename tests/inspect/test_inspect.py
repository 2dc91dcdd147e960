"""Inspect: a page for every model, and predictions that agree with what quantize then does."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.model import ir_conversion, model_file
from stages.inspect import screen, stage
from tests import sources
from tests.quantize.running import Bench
from tests.zoo import ZOO, needs_zoo


def page(model: onnx.ModelProto, tmp_path: Path) -> str:
    onnx.save(model, tmp_path / "mine.onnx")
    return screen.render(stage.run(tmp_path / "mine.onnx"))


def test_the_page_of_a_linear_model(tmp_path: Path) -> None:
    text = page(sources.linear(256, 64), tmp_path)
    assert "x float [n, 256]" in text
    assert "1 Gemm" in text
    assert "method: dynamic" in text


def conv(dtype: int = TensorProto.FLOAT, opset: int = 17) -> onnx.ModelProto:
    values = np.random.default_rng(0).normal(size=(64, 32, 3, 3)).astype(helper.tensor_dtype_to_np_dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "W"], ["y"], "conv")],
        "conv",
        [helper.make_tensor_value_info("x", dtype, ["n", 32, 8, 8])],
        [helper.make_tensor_value_info("y", dtype, ["n", 64, 6, 6])],
        [numpy_helper.from_array(values, "W")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_a_file_that_would_grow_is_predicted_to_stay_as_it_is(tmp_path: Path) -> None:
    text = page(sources.linear(8, 4), tmp_path)
    assert "ship fp32" in text
    assert all(line.split()[1:3] == ["0", "0%"] for line in text.splitlines() if line.strip().startswith("dynamic"))


def test_a_cnn_starts_from_static(tmp_path: Path) -> None:
    text = page(conv(), tmp_path)
    assert "Conv is slower in INT8 with dynamic ranges" in text
    assert "method: static" in text


def test_an_opset_that_cannot_be_converted_starts_from_stored(tmp_path: Path) -> None:
    model = conv(opset=7)
    model.graph.node[0].input[0] = "s"
    model.graph.node.insert(0, helper.make_node("ImageScaler", ["x"], ["s"], scale=1.0, bias=[0.0] * 32))
    text = page(model, tmp_path)
    assert "Opset 7 cannot be converted to 13" in text
    assert "method: stored" in text


def test_half_precision_is_said(tmp_path: Path) -> None:
    text = page(conv(TensorProto.FLOAT16), tmp_path)
    assert "Weights in float16: INT8 kernels take float32, so quantize converts the model to float32" in text
    assert "method: static" in text


def test_an_output_that_export_refuses_is_refused_here_too(tmp_path: Path) -> None:
    model = sources.linear()
    model.graph.node[0].output[0] = "h"
    model.graph.node.append(helper.make_node("Cast", ["h"], ["y"], to=TensorProto.BFLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    assert "refuses this model. Its output 'y' is bfloat16" in page(model, tmp_path)


def test_a_weight_that_quantize_refuses_is_refused_here_too(tmp_path: Path) -> None:
    model = sources.linear()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[3] = np.inf
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, model.graph.initializer[0].name))
    assert "has infinity in 1 of" in page(model, tmp_path)


def test_a_batch_that_matters_is_said(tmp_path: Path) -> None:
    model = sources.linear()
    model.graph.node[0].output[0] = "h"
    model.graph.node.append(helper.make_node("ReduceSum", ["h", "axis"], ["s"], keepdims=1))
    model.graph.node.append(helper.make_node("Sub", ["h", "s"], ["y"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    assert "The output 'y' of a sample depends on the others in its batch" in page(model, tmp_path)


def test_a_tied_embedding_is_said(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["E", "ids"], ["h"]), helper.make_node("MatMul", ["h", "E"], ["y"])],
        "tied",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(table, "E")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert "The weight 'E' is shared by several nodes (a tied embedding)" in page(model, tmp_path)


REFUSED = {
    "bert_tokenizer_custom_op",
    "conv_qdq_external",
    "fp8_cast",
    "go_fp16_bf16",
    "go_strings",  # refused if the locale that it names is not installed
    "qdq_mobilenet_block",
}

LONG = {"gpt2_past", "keras_bert_qa"}
"""Models with thousands of nodes: all methods together take more than ten seconds."""

MODELS = sorted(path.parent.name for path in ZOO.glob("*/model.onnx")) if ZOO else []

SMALL_BYTES = 1000
"""The size of a file of a few kilobytes is predicted to a kilobyte, not to a tenth: nodes and names take most of it."""


def check(source: Path, inputs: dict[str, np.ndarray], bench: Bench, share: float = 0.1) -> None:
    """With each method, quantize quantizes the predicted nodes, and the size is right to a `share` of it."""
    predictions = stage.run(source).predictions
    clean = stage.cleaned(model_file.read(source, "export"))  # as export would publish it
    bench.give(ir_conversion.to_proto(clean), inputs, "feeds")
    for prediction in predictions:
        outcome = bench.run(method=prediction.method)
        taken = {node.name for node in prediction.nodes}
        assert outcome.quantized() == taken, prediction.method
        size = model_file.size_mb(paths.INT8_MODEL)
        assert abs(prediction.mb - size) <= max(share * size, SMALL_BYTES / 1e6), prediction.method


@needs_zoo
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.extended if name in LONG else ()) for name in MODELS if name not in REFUSED],
)
def test_what_is_predicted_happens(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ZOO is not None
    samples = ZOO / name / "samples.npz"
    with np.load(samples if samples.exists() else ZOO / name / "inputs.npz") as archive:
        inputs = {key: array if samples.exists() else array[np.newaxis] for key, array in archive.items()}
    check(ZOO / name / "model.onnx", inputs, Bench(tmp_path, monkeypatch))


def test_a_layer_and_a_convolution_are_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    image = (4, 2, 32, 8, 8)
    for model, shape, dtype in (
        (sources.linear(256, 64), (4, 2, 256), np.float32),
        (conv(), image, np.float32),
        (conv(TensorProto.FLOAT16), image, np.float16),
    ):
        onnx.save(model, "mine.onnx")
        check(Path("mine.onnx"), {"x": np.random.default_rng(0).normal(size=shape).astype(dtype)}, bench, 0.02)


@needs_zoo
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.extended if name in LONG else ()) for name in MODELS]
)
def test_every_model_has_its_page(name: str) -> None:
    assert ZOO is not None
    text = screen.render(stage.run(ZOO / name / "model.onnx"))
    assert len(text.splitlines()) <= 60
    assert ("Start with these params" in text) + ("ship fp32" in text) + ("refuses this model" in text) == 1


@needs_zoo
def test_every_broken_file_has_its_sentence() -> None:
    assert ZOO is not None
    for broken in sorted((ZOO / "_broken").iterdir()):
        file = broken / "model.onnx" if broken.is_dir() else broken
        if broken.name in ("already_dynamic_int8.onnx", "inf_weight.onnx"):
            assert "refuses this model" in screen.render(stage.run(file))
            continue
        with pytest.raises(StageError) as raised:
            stage.run(file)
        assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"nope\.onnx does not exist\. Give the path of an \.onnx file\."):
        stage.run(tmp_path / "nope.onnx")
