"""Static quantization: the INT8 kernels that really run, their answers, and what is kept float."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from stages.common.base.errors import ParamsError
from stages.common.graph.passes import remove_dropout
from tests.onnx_models import applied
from tests.quantize import nets
from tests.quantize.nets import net, node, normal
from tests.quantize.running import Bench, graph

FLOAT_KERNELS = {"Conv", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "NhwcFusedConv"}


def float_kernels(model: ModelProto) -> set[str]:
    return FLOAT_KERNELS & set(nets.kernels(model))


@pytest.mark.parametrize("weight_type", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_every_layer_of_a_convolutional_net_runs_in_int8(weight_type: str, per_channel: bool) -> None:
    model = nets.conv_net()
    quantized, outcomes = nets.quantized(model, method="static", weight_type=weight_type, per_channel=per_channel)
    assert all(outcome.quantized for outcome in outcomes.values())
    assert len(outcomes) == 4
    kernels = nets.kernels(quantized)
    assert kernels["QLinearConv"] == 3
    assert kernels["QGemm"] == kernels["QLinearAdd"] == 1
    assert not float_kernels(quantized)
    assert kernels["QuantizeLinear"] == 1  # that of the input: no operator in between runs in float
    assert nets.sqnr_db(model, quantized) > 20


def test_scales_after_a_convolution_are_folded_into_it() -> None:
    nodes = [
        node("Conv", "x W", "c", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c scale shift mean variance", "n", epsilon=0.01),
        node("Mul", "n factor", "m"),
        node("Add", "offset m", "a"),
        node("Relu", "a", "h"),
        node("Conv", "h V b", "d"),
        node("BatchNormalization", "d scale shift mean variance", "y"),
    ]
    constants = {
        "W": normal(6, 3, 3, 3), "V": normal(6, 6, 1, 1, seed=1), "b": normal(6, seed=9), "scale": normal(6, seed=2),
        "shift": normal(6, seed=3), "mean": normal(6, seed=4), "variance": normal(6, seed=5) ** 2,
        "factor": normal(1, 6, 1, 1, seed=6), "offset": normal(6, 1, 1, seed=7),
    }  # fmt: skip
    model = net(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 6, 8, 8]}, constants)
    quantized, outcomes = nets.quantized(model, method="static")
    assert all(outcome.quantized for outcome in outcomes.values())
    kernels = nets.kernels(quantized)
    assert kernels["QLinearConv"] == 2
    assert kernels["QuantizeLinear"] == kernels["DequantizeLinear"] == 1
    assert not {"BatchNormalization", "Mul", "Add"} & set(kernels)
    assert not set(constants) & {tensor.name for tensor in quantized.graph.initializer}
    assert nets.sqnr_db(model, quantized) > 20


def test_computed_scales_after_a_weight_are_folded_too(bench: Bench) -> None:
    """Paddle's converter writes a bias as Reshape of an initializer, others as Constant."""
    nodes = [
        node("Conv", "x W", "c"),
        node("Reshape", "b channels", "reshaped"),
        node("Add", "c reshaped", "a"),
        node("Constant", "", "scale", value=numpy_helper.from_array(normal(6, seed=2))),
        node("BatchNormalization", "a scale shift mean variance", "n"),
        node("Relu", "n", "h"),
        node("GlobalAveragePool", "h", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f V", "m"),
        node("Identity", "last", "copied"),
        node("Add", "m copied", "y"),
    ]
    constants = {
        "W": normal(6, 3, 3, 3), "b": normal(6, seed=1), "channels": np.array([1, 6, 1, 1]), "shift": normal(6, seed=3),
        "mean": normal(6, seed=4), "variance": normal(6, seed=5) ** 2, "V": normal(6, 40, seed=6),
        "last": normal(40, seed=7),
    }  # fmt: skip
    model = net(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 40]}, constants)
    bench.give(model, {"x": normal(16, 3, 8, 8)})
    kernels = nets.kernels(bench.run(method="static").int8_model)
    assert kernels["QLinearConv"] == kernels["QGemm"] == 1
    assert not {"BatchNormalization", "Add"} & set(kernels)


def test_what_is_not_one_value_per_channel_is_not_folded() -> None:
    nodes = [node("Conv", "x W", "c"), node("Mul", "c rows", "m"), node("Mul", "m m", "y")]
    constants = {"W": normal(6, 3, 1, 1), "rows": normal(8, 1)}
    model = net(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 6, 8, 8]}, constants)
    quantized, _ = nets.quantized(model, method="static")
    assert nets.sqnr_db(model, quantized) > 20


def test_what_a_caller_may_override_is_not_folded() -> None:
    nodes = [
        node("Conv", "x W", "c"),
        node("Mul", "c factor", "m"),
        node("MatMul", "z V", "p"),
        node("Add", "p b", "y"),
    ]
    constants = {"W": normal(6, 3, 1, 1), "factor": normal(6, 1, 1), "V": normal(16, 8), "b": normal(8)}
    inputs = {"x": ("N", 3, 8, 8), "z": ("N", 16), "factor": (6, 1, 1), "b": (8,)}
    model = net(nodes, inputs, {"m": ("N", 6, 8, 8), "y": ("N", 8)}, constants)
    quantized, _ = nets.quantized(model, method="static")
    given = [{**feed, "factor": normal(6, 1, 1, seed=5), "b": normal(8, seed=6)} for feed in nets.feeds(model, 4)]
    assert nets.sqnr_db(model, quantized, given) > 20


def test_a_scalar_of_higher_rank_is_not_folded() -> None:
    nodes = [node("Conv", "x W", "c"), node("Mul", "c s", "y")]
    constants = {"W": normal(6, 3, 1, 1), "s": normal(1, 1, 1, 1, 1)}
    model = net(nodes, {"x": [2, 3, 8, 8]}, {"y": [1, 2, 6, 8, 8]}, constants)
    quantized, _ = nets.quantized(model, method="static")
    assert nets.kernels(quantized)["Mul"] == 1
    assert nets.sqnr_db(model, quantized) > 20


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_a_relu_at_the_end_gives_floats(activation: str) -> None:
    nodes = [node("Gemm", "x W b", "s"), node(activation, "s", "y")]
    model = net(nodes, {"x": ["N", 16]}, {"y": ["N", 8]}, {"W": normal(16, 8), "b": normal(8)})
    quantized, _ = nets.quantized(model, method="static")
    assert nets.kernels(quantized)["QGemm"] == 1
    assert "DequantizeLinear" not in nets.kernels(quantized)


def test_an_operator_at_the_end_stays_float() -> None:
    nodes = [node("Conv", "x W", "c"), node("GlobalAveragePool", "c", "y")]
    model = net(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 6, 1, 1]}, {"W": normal(6, 3, 1, 1)})
    quantized, _ = nets.quantized(model, method="static")
    assert nets.kernels(quantized)["GlobalAveragePool"] == 1


def test_signed_activations_answer_alike() -> None:
    model = nets.conv_net()
    quantized, outcomes = nets.quantized(model, method="static", activation_type="QInt8")
    assert {outcome.how for outcome in outcomes.values()} == {"QInt8 per channel, activations QInt8"}
    assert nets.sqnr_db(model, quantized) > 20


@pytest.mark.parametrize("pool_first", [True, False])
def test_a_relu_behind_a_pool_costs_nothing(pool_first: bool) -> None:
    quantized, _ = nets.quantized(nets.conv_net(pool_first=pool_first), method="static")
    kernels = nets.kernels(quantized)
    assert "Relu" not in kernels
    assert kernels["MaxPool"] + kernels["NhwcMaxPool"] == 1


def test_matmul_and_add_run_as_one_int8_gemm() -> None:
    model = nets.mlp()
    quantized, outcomes = nets.quantized(model, method="static")
    assert [outcomes[name].how for name in ("MatMul_p0", "MatMul_p1", "MatMul_p2")] == [
        "QInt8 per channel, activations QUInt8"
    ] * 3
    assert nets.kernels(quantized)["QGemm"] == 3
    assert not float_kernels(quantized)
    assert nets.sqnr_db(model, quantized) > 20


def test_a_matmul_of_rank_three_stays_one() -> None:
    nodes = [node("MatMul", "x W", "p"), node("Add", "p b", "s"), node("Relu", "s", "y")]
    model = net(nodes, {"x": ["N", 5, 16]}, {"y": ["N", 5, 8]}, {"W": normal(16, 8), "b": normal(8)})
    quantized, _ = nets.quantized(model, method="static")
    assert nets.kernels(quantized)["MatMulIntegerToFloat"] == 1
    assert nets.sqnr_db(model, quantized) > 25


@pytest.mark.parametrize("activation", ["Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu"])
@pytest.mark.parametrize("last", ["Abs", "Identity"])
def test_an_activation_function_does_not_bring_float_back(activation: str, last: str) -> None:
    nodes = [node("Gemm", "x W b", "s"), node(activation, "s", "h"), node(last, "h", "y")]
    model = net(nodes, {"x": ["N", 16]}, {"y": ["N", 8]}, {"W": normal(16, 8), "b": normal(8)})
    quantized, _ = nets.quantized(model, method="static")
    assert nets.kernels(quantized)["QGemm"] == 1
    assert nets.sqnr_db(model, quantized) > 25


@given(
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    method=st.sampled_from(["minmax", "percentile"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_any_mlp_keeps_its_answers(widths: list[int], method: str, seed: int) -> None:
    model = nets.mlp(widths, seed)
    quantized, outcomes = nets.quantized(model, method="static", calibration={"method": method})
    assert all(outcome.quantized for outcome in outcomes.values())
    assert nets.sqnr_db(model, quantized, nets.feeds(model)) > 15


@given(channels=st.integers(1, 12), seed=st.integers(0, 99), opset=st.sampled_from([11, 12, 13, 17, 21]))
@settings(max_examples=15, deadline=None)
def test_any_convolutional_net_keeps_its_answers(channels: int, seed: int, opset: int) -> None:
    model = nets.conv_net(channels, seed, opset)
    quantized, outcomes = nets.quantized(model, method="static")
    assert all(outcome.quantized for outcome in outcomes.values())
    channel = "channel" if opset >= 13 else "tensor"
    assert all(channel in outcome.how for outcome in outcomes.values())
    assert nets.sqnr_db(model, quantized, nets.feeds(model)) > 12


@pytest.mark.parametrize("shape", [(8,), (1, 8)])
def test_a_gemm_takes_its_bias_along_however_it_is_shaped(shape: tuple[int, ...]) -> None:
    model = net(
        [node("Gemm", "x W b", "y")], {"x": ["N", 16]}, {"y": ["N", 8]}, {"W": normal(16, 8), "b": normal(*shape)}
    )
    quantized, outcomes = nets.quantized(model, method="static")
    assert outcomes["Gemm_y"].quantized
    assert nets.kernels(quantized)["QGemm"] == 1
    assert nets.sqnr_db(model, quantized) > 25


@pytest.mark.parametrize("shape", [(1,), (3, 8), (3, 1)])
def test_a_gemm_with_another_bias_stays_float_and_says_so(shape: tuple[int, ...]) -> None:
    model = net([node("Gemm", "x W b", "y")], {"x": [3, 16]}, {"y": [3, 8]}, {"W": normal(16, 8), "b": normal(*shape)})
    quantized, outcomes = nets.quantized(model, method="static")
    assert not outcomes["Gemm_y"].quantized
    assert f"its bias has shape {list(shape)}" in outcomes["Gemm_y"].reason
    assert {node.op_type for node in quantized.graph.node} == {"Gemm"}


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}, {"transB": 1, "alpha": 3.0}])
def test_a_gemm_with_attributes_gives_the_right_answer(attributes: dict[str, float]) -> None:
    weight = normal(8, 16) if "transB" in attributes else normal(16, 8)
    size = [16, 5] if "transA" in attributes else [5, 16]
    model = net(
        [node("Gemm", "x W b", "y", **attributes)], {"x": size}, {"y": [5, 8]}, {"W": weight, "b": normal(8, seed=3)}
    )
    quantized, outcomes = nets.quantized(model, method="static")
    assert outcomes["Gemm_y"].quantized
    assert nets.sqnr_db(model, quantized) > 25


@pytest.mark.parametrize("portable", [True, False])
def test_the_rounding_errors_of_a_depthwise_filter_cancel(portable: bool) -> None:
    weight = normal(8, 1, 5, 5)
    model = net([node("Conv", "x W", "y", group=8)], {"x": [1, 8, 9, 9]}, {"y": [1, 8, 5, 5]}, {"W": weight})
    quantized, _ = nets.quantized(model, method="static", portable=portable)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    scale = stored["W_int8_scale"][:, None, None, None]
    errors = weight - stored["W_int8"] * scale
    assert np.all(np.abs(errors.sum((1, 2, 3), keepdims=True)) <= 0.51 * scale)


def test_weights_that_are_tiny_beside_the_bias_do_not_overflow() -> None:
    constants = {"W": normal(16, 8) * np.float32(1e-12), "b": normal(8) * 1000}
    model = net([node("Gemm", "x W b", "y")], {"x": ["N", 16]}, {"y": ["N", 8]}, constants)
    for weight_type in ("QInt8", "QUInt8"):
        for per_channel in (True, False):
            quantized, _ = nets.quantized(model, method="static", weight_type=weight_type, per_channel=per_channel)
            assert nets.sqnr_db(model, quantized) > 60


def test_outputs_and_shared_tensors_keep_their_names_and_values() -> None:
    nodes = [
        node("Conv", "x W", "y", kernel_shape=[1, 1]),
        node("Conv", "y V", "z", kernel_shape=[1, 1]),
        node("Sin", "y", "s"),
    ]
    constants = {"W": normal(4, 3, 1, 1), "V": normal(4, 4, 1, 1)}
    model = net(nodes, {"x": ["N", 3, 5, 5]}, dict.fromkeys("yzs", ("N", 4, 5, 5)), constants)
    quantized, _ = nets.quantized(model, method="static")
    assert [value.name for value in quantized.graph.output] == ["y", "z", "s"]
    assert nets.kernels(quantized)["QLinearConv"] == 2
    assert nets.sqnr_db(model, quantized) > 25


def test_what_calibration_cannot_see_stays_float() -> None:
    branch = helper.make_graph(
        [node("MatMul", "x W", "inner")], "branch", [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["N", 8])],
    )  # fmt: skip
    nodes = [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Cast", "sum", "flag", to=TensorProto.BOOL),
        helper.make_node("If", ["flag"], ["y"], name="If", then_branch=branch, else_branch=branch),
    ]
    model = net(nodes, {"x": ["N", 16]}, {"y": ["N", 8]}, {"W": normal(16, 8)})
    _, outcomes = nets.quantized(model, method="static")
    assert all("which static cannot calibrate" in outcome.reason for outcome in outcomes.values())


def test_activations_without_a_finite_value_stay_float() -> None:
    nodes = [node("MatMul", "x W", "y"), node("MatMul", "z W", "v")]
    model = net(nodes, {"x": ["N", 16], "z": ["N", 16]}, {"y": ["N", 8], "v": ["N", 8]}, {"W": normal(16, 8)})
    given = [{"x": np.full((1, 16), np.inf, np.float32), "z": normal(1, 16)}]
    quantized, outcomes = nets.quantized(model, given, method="static")
    assert "held no finite value" in outcomes["MatMul_y"].reason
    assert outcomes["MatMul_v"].quantized
    assert nets.kernels(quantized)["MatMulIntegerToFloat"] == 1


def test_an_old_opset_and_4_bit_weights_are_refused() -> None:
    _, outcomes = nets.quantized(nets.mlp(opset=9), method="static")
    assert all("needs opset 10, but the model has 9" in outcome.reason for outcome in outcomes.values())
    with pytest.raises(ParamsError, match="weight_only"):
        nets.quantized(nets.mlp(), method="static", weight_type="QInt4")


def test_dropout_of_a_training_export_stays_asleep(bench: Bench) -> None:
    """ONNX Runtime removes it at load. Calibration must not activate it: its ranges would differ in every run."""
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"], "first"),
        helper.make_node("Dropout", ["h", "ratio", "training"], ["d"], "drop"),
        helper.make_node("MatMul", ["d", "V"], ["y"], "second"),
    ]
    weights = {"W": normal(16, 32), "V": normal(32, 8), "ratio": np.array(0.5, np.float32), "training": np.array(True)}
    bench.give(graph(nodes, {"x": ("n", 16)}, {"y": ("n", 8)}, weights), {"x": normal(40, 16)})
    first, second = (bench.run(method="static").int8_model.SerializeToString() for _ in range(2))
    assert first == second
    assert bench.run(method="static").quantized() == {"first", "second"}


def test_dropout_whose_mask_is_used_stays() -> None:
    nodes = [helper.make_node("Dropout", ["x"], ["y", "mask"], "drop")]
    model = graph(nodes, {"x": ("n", 16)}, {"y": ("n", 16)}, {})
    model.graph.output.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, None))
    assert not applied(remove_dropout.apply, model)[1]


def test_weights_made_coarser_for_their_bias_report_what_that_costs() -> None:
    """With such a large bias all weights become zero, and the SQNR is that of these weights."""
    constants = {"W": normal(16, 8) * np.float32(1e-12), "b": normal(8) * 1000}
    model = net([node("Gemm", "x W b", "y")], {"x": ["N", 16]}, {"y": ["N", 8]}, constants)
    quantized, outcomes = nets.quantized(model, method="static", per_channel=False)
    weight = next(tensor for tensor in quantized.graph.initializer if tensor.name == "W_int8")
    assert not numpy_helper.to_array(weight).any()
    assert outcomes["Gemm_y"].sqnr_db == 0
