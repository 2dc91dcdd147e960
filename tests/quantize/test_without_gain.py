"""What the stage says if INT8 saves nothing, if the evaluation data is missing, and if an output collapses."""

import json
import shutil

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.quantize import growth, stage
from tests.quantize import nets
from tests.quantize.nets import net, node, normal
from tests.quantize.running import Bench, run
from tests.zoo import ZOO, needs_zoo


def test_where_the_file_would_grow_fp32_is_kept_and_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "LARGEST_SHARE", 1.0)
    bench.give(nets.mlp((8, 8, 8)), {"x": normal(40, 8)})
    outcome = bench.run()
    assert outcome.metrics["status"] == "nothing_to_quantize"
    assert outcome.metrics["size"]["int8_mb"] == outcome.metrics["size"]["fp32_mb"]
    assert outcome.nodes["MatMul_p0"]["reason"].startswith("quantized, the file would grow from 0.00")
    assert "scales and added nodes take more than INT8 weights save" in outcome.said
    bench.give(nets.mlp((64, 96, 64)), {"x": normal(40, 64)})
    assert bench.run().metrics["status"] == "quantized"


@pytest.mark.parametrize("transposed", [False, True])
def test_a_tied_embedding_that_would_be_stored_twice_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, transposed: bool
) -> None:
    """Under its own name, and as the constant that the weight is computed from."""
    monkeypatch.setattr(growth, "LARGEST_SHARE", 1.0)
    head = (
        [node("Transpose", "E", "V"), node("MatMul", "h V", "y")]
        if transposed
        else [node("Gemm", "h E", "y", transB=1)]
    )
    model = net([node("Gather", "E ids", "h"), *head], {}, {"y": ["N", 300]}, {"E": normal(300, 64)})
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"]))
    bench.give(model, {"ids": np.arange(40)})
    outcome = bench.run(method="static")
    assert outcome.metrics["status"] == "nothing_to_quantize"
    assert "weights that float nodes also read would be stored twice" in outcome.said


def test_a_narrow_table_shares_one_scale(bench: Bench) -> None:
    nodes = [node("Gather", "narrow ids", "y"), node("Gather", "wide ids", "z")]
    model = net(nodes, {}, {"y": ["N", 1], "z": ["N", 16]}, {"narrow": normal(500, 1), "wide": normal(500, 16)})
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"]))
    bench.give(model, {"ids": np.arange(40)})
    outcome = bench.run()
    assert outcome.nodes["Gather_y"]["how"] == "QInt8 per tensor"
    assert outcome.nodes["Gather_z"]["how"] == "QInt8 per row"


def test_a_table_with_a_large_column_has_a_scale_for_each_column(bench: Bench) -> None:
    table = normal(3, 64)
    table[:, 7] *= 100
    few = net([node("Gather", "E ids", "y")], {}, {"y": ["N", 64]}, {"E": table})
    few.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"]))
    bench.give(few, {"ids": np.arange(12) % 3})
    outcome = bench.run()
    assert outcome.nodes["Gather_y"]["how"] == "QInt8 per column"
    assert float(outcome.nodes["Gather_y"]["weight_sqnr_db"]) > 45  # with a scale per row it is 30
    lookup = run(outcome.int8, {"ids": np.arange(3)})["y"]
    assert np.abs(lookup - table).max() < 1.01 * np.abs(table).max() / 254
    small = np.delete(np.arange(64), 7)
    assert np.abs(lookup - table)[:, small].max() < np.abs(table[:, small]).max() / 200


@pytest.mark.parametrize("method", ["dynamic", "weight_only"])
def test_a_lone_model_is_quantized_without_data(bench: Bench, method: str) -> None:
    bench.give(nets.mlp((64, 96, 64)), {"x": normal(40, 64)})
    with_data = bench.run(method=method).int8_model
    shutil.rmtree(paths.EVAL)
    outcome = bench.run(method=method)
    assert outcome.int8_model == with_data
    assert "only checked on generated inputs" in outcome.said
    assert json.loads(paths.QUANTIZE_DETAILS.read_text())["notes"] == [stage.GENERATED_INPUTS]


def test_static_asks_for_data(bench: Bench) -> None:
    bench.give(nets.mlp((64, 96, 64)), {"x": normal(40, 64)})
    shutil.rmtree(paths.EVAL)
    with pytest.raises(
        StageError, match=r"method static calibrates .* on samples, but artifacts/eval is missing\. Run exp"
    ):
        bench.run(method="static")


def test_an_output_that_stands_still_is_named(bench: Bench) -> None:
    """All values of a quiet sample are below half a step of the range that loud samples calibrate: they become 0."""
    model = net([node("MatMul", "x W", "p"), node("Relu", "p", "h"), node("MatMul", "h V", "y")],
                {"x": ["N", 32]}, {"y": ["N", 8]}, {"W": normal(32, 64), "V": normal(64, 8)})  # fmt: skip
    x = normal(200, 32)
    x[::2] *= np.float32(1e-6)
    bench.give(model, {"x": x})
    outcome = bench.run(method="static")
    assert "feeds all values of the output 'y' are equal in INT8, but not in fp32" in outcome.said
    assert "are equal in INT8" not in bench.run(method="dynamic").said


def test_an_output_that_loses_its_range_is_named(bench: Bench) -> None:
    x = normal(400, 32)
    x[60:] *= 20  # the search split is sorted, so calibration only sees the first samples
    bench.give(nets.mlp((32, 64, 8)), {"x": x})
    outcome = bench.run(method="static", calibration={"samples": 10})
    assert "of its range in INT8: values outside the calibrated ranges are clipped" in outcome.said
    assert "are clipped" not in bench.run(method="static").said


def test_weights_of_a_body_that_come_from_constant_nodes_outside_are_reached(bench: Bench) -> None:
    """As in voice models: LSTM weights are Constant nodes of the main graph, reshaped inside If."""

    def body(name: str) -> helper.GraphProto:
        nodes = [
            node("Unsqueeze", "W axis", f"{name}W"), node("Unsqueeze", "R axis", f"{name}R"),
            helper.make_node("LSTM", ["x", f"{name}W", f"{name}R"], [name], name=f"LSTM_{name}", hidden_size=32),
        ]  # fmt: skip
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    constants = {"W": normal(128, 16), "R": normal(128, 32, seed=1), "axis": np.array([0])}
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))
        for name, values in constants.items()
    ]
    nodes += [
        node("ReduceSum", "x", "sum", keepdims=0), node("Cast", "sum", "flag", to=TensorProto.BOOL),
        helper.make_node("If", ["flag"], ["y"], name="If", then_branch=body("a"), else_branch=body("b")),
    ]  # fmt: skip
    bench.give(net(nodes, {"x": [5, 1, 16]}, {"y": [5, 1, 1, 32]}, {}), {"x": normal(12, 5, 1, 16)}, "feeds")
    outcome = bench.run()
    assert outcome.quantized() == {"LSTM_a", "LSTM_b"}
    stored = [tensor for tensor in outcome.int8_model.graph.initializer if tensor.data_type == TensorProto.INT8]
    assert sum(np.prod(tensor.dims) for tensor in stored if len(tensor.dims) == 3 and tensor.dims[1] > 1) == 128 * 48
    assert outcome.cosine({"x": normal(5, 1, 16)}) > 0.999


@needs_zoo
def test_the_decoder_inside_of_a_search_is_quantized(bench: Bench) -> None:
    assert ZOO is not None
    samples = np.load(ZOO / "tiny_gpt2_beamsearch" / "samples.npz")
    data = {name: samples[name] for name in samples.files}
    bench.give((ZOO / "tiny_gpt2_beamsearch" / "model.onnx").read_bytes(), data, "feeds")
    outcome = bench.run()
    assert outcome.metrics["nodes"] == {"quantizable": 22, "quantized": 21, "kept_float": 1}
    equal = []
    for at in range(4):
        feed = {name: values[at] for name, values in data.items()}
        tokens, others = (next(iter(run(session, feed).values())) for session in (outcome.fp32, outcome.int8))
        equal.append(float(np.mean(tokens == others)))
    assert np.mean(equal) > 0.9
