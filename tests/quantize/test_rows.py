"""One activation scale per row: the formula holds on any graph, and no row depends on another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from stages.common.model import sessions
from stages.quantize import portable
from stages.quantize.methods import rows
from tests.onnx_models import ir_model, opened
from tests.quantize import nets
from tests.quantize.nets import net, node, normal
from tests.quantize.running import Bench

TINY = np.finfo(np.float32).tiny


def product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A product with one scale per row, in NumPy: [..., K] by [K, N]."""
    matrix = x.reshape(-1, x.shape[-1]).astype(np.float32)
    quantized = portable.quantize(weight, 0, (1,))
    low = np.minimum(matrix.min(axis=1, keepdims=True), 0)
    high = np.maximum(matrix.max(axis=1, keepdims=True), 0)
    scale = np.maximum((high - low) * np.float32(1 / 255), TINY)
    zero = np.rint(-low / scale)
    values = np.clip(np.rint(matrix / scale) + zero, 0, 255)
    summed = (values - zero).astype(np.float64) @ quantized.values.astype(np.float64)
    floats: np.ndarray = summed * scale * quantized.scale
    return floats.reshape(*x.shape[:-1], weight.shape[1])


def run(model: ModelProto, **feed: np.ndarray) -> np.ndarray:
    answer: np.ndarray = sessions.run(opened(model), feed, name="net")[0]
    return answer


def by_row(model: ModelProto) -> ModelProto:
    quantized, outcomes = nets.quantized(model, activation_scale="row")
    assert all(outcome.quantized for outcome in outcomes.values())
    return quantized


def assert_close(found: np.ndarray, expected: np.ndarray, weight: np.ndarray, x: np.ndarray) -> None:
    """Equal, except for activations so close to the middle between two steps that they may round either way."""
    step = np.ptp(np.append(x, 0)) / 255 * np.abs(weight).max()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1.1 * step)
    assert np.mean(np.abs(found - expected) > 1e-4 * max(1, np.abs(expected).max())) < 0.05


shapes = st.lists(st.integers(1, 4), min_size=0, max_size=3)


@given(leading=shapes, inner=st.integers(1, 40), width=st.integers(1, 20), seed=st.integers(0, 99), bias=st.booleans())
@settings(max_examples=40, deadline=None)
def test_products_of_any_rank(leading: list[int], inner: int, width: int, seed: int, bias: bool) -> None:
    weight, offset = normal(inner, width, seed=seed), normal(width, seed=seed + 1)
    nodes = [node("MatMul", "x W", "p"), node("Add", "p b", "y")] if bias else [node("MatMul", "x W", "y")]
    x = normal(*leading, inner, seed=seed + 2)
    x.reshape(-1, inner)[0] = seed % 3 - 1  # a constant row: zero, negative or positive
    names = [f"d{at}" for at in range(len(leading))]
    model = net(nodes, {"x": [*names, inner]}, {"y": [*names, width]}, {"W": weight, "b": offset})
    assert_close(run(by_row(model), x=x), product(x, weight) + (offset if bias else 0), weight, x)


@given(
    trans_a=st.booleans(), trans_b=st.booleans(), alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([0.0, 1.0, 0.25]), bias=st.sampled_from([(), (8,), (1, 8), (5, 8), (5, 1)]),
    constant=st.booleans(), opset=st.sampled_from([13, 17, 21]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_gemm_with_any_attributes(
    trans_a: bool, trans_b: bool, alpha: float, beta: float, bias: tuple[int, ...], constant: bool, opset: int
) -> None:
    weight, offset, x = normal(16, 8), normal(*bias, seed=3), normal(5, 16, seed=4)
    attributes = {"transA": int(trans_a), "transB": int(trans_b), "alpha": alpha, "beta": beta}
    constants = {"W": weight.T if trans_b else weight} | ({"b": offset} if constant else {})
    inputs = {"x": [16, 5] if trans_a else [5, 16]} | ({} if constant else {"b": list(bias)})
    model = net([node("Gemm", "x W b", "y", **attributes)], inputs, {"y": [5, 8]}, constants, opset)
    feed = {"x": np.ascontiguousarray(x.T) if trans_a else x} | ({} if constant else {"b": offset})
    expected = alpha * product(x, weight) + beta * offset
    assert_close(run(by_row(model), **feed), expected, abs(alpha) * weight, x)


@given(widths=st.lists(st.integers(1, 40), min_size=2, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_an_mlp_answers_alike_in_any_batch(widths: list[int], seed: int) -> None:
    quantized = by_row(nets.mlp(widths, seed))
    x = normal(9, widths[0], seed=seed) * np.float32(10) ** np.arange(-4, 5, dtype=np.float32)[:, None]
    session = opened(quantized)
    alone = [sessions.run(session, {"x": row[None]}, name="net")[0][0] for row in x]
    np.testing.assert_allclose(run(quantized, x=x), np.stack(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_in_one_row_changes_no_other(broken: float) -> None:
    model = nets.mlp()
    x = normal(6, 12)
    spoilt = x.copy()
    spoilt[2, 3] = broken
    others = [0, 1, 3, 4, 5]
    quantized = by_row(model)
    np.testing.assert_array_equal(run(quantized, x=spoilt)[others], run(quantized, x=x)[others])
    per_tensor, _ = nets.quantized(model)
    assert not np.allclose(run(per_tensor, x=spoilt)[others], run(per_tensor, x=x)[others])


def test_weights_in_bodies_of_if() -> None:
    def body(name: str) -> helper.GraphProto:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8])
        return helper.make_graph([node("MatMul", f"x W{name}", name)], name, [], [output])

    nodes = [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Greater", "sum zero", "flag"),
        helper.make_node("If", ["flag"], ["y"], name="If", then_branch=body("a"), else_branch=body("b")),
    ]
    constants = {"Wa": normal(16, 8), "Wb": normal(16, 8, seed=1), "zero": np.zeros((), np.float32)}
    quantized = by_row(net(nodes, {"x": ["N", 16]}, {"y": ["N", 8]}, constants))
    x = np.abs(normal(4, 16))
    assert_close(run(quantized, x=x), product(x, constants["Wa"]), constants["Wa"], x)
    assert_close(run(quantized, x=-x), product(-x, constants["Wb"]), constants["Wb"], x)


def test_nodes_that_read_one_activation_share_its_scales_even_where_their_biases_come_late() -> None:
    nodes = [node("MatMul", f"x W{name}", f"p{name}") for name in "qkv"]
    nodes += [node("Add", f"p{name} b{name}", name) for name in "qkv"]
    constants = {f"W{name}": normal(16, 16, seed=at) for at, name in enumerate("qkv")}
    constants |= {f"b{name}": normal(16, seed=at) for at, name in enumerate("qkv")}
    model = net(nodes, {"x": ["N", 16]}, {name: ["N", 16] for name in "qkv"}, constants)
    quantized, outcomes = nets.quantized(model, activation_scale="row")
    kinds = [node.op_type for node in quantized.graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("Pad") == kinds.count("ReduceMin") == 1
    assert nets.kernels(quantized)["MatMulIntegerToFloat"] == 3
    quantizer = next(node.name for node in quantized.graph.node if node.op_type == "QuantizeLinear")
    assert all(quantizer in outcome.becomes for outcome in outcomes.values())
    assert nets.sqnr_db(model, quantized) > 35


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("Relu", "x", "h")], True),
        ([node("Relu", "x", "r"), node("MaxPool", "r", "m", kernel_shape=[1]), node("Add", "m c", "h")], True),
        ([node("Clip", "x c", "h")], True),
        ([node("Clip", "x d", "h")], False),
        ([node("Relu", "x", "r"), node("Sub", "r c", "h")], False),
        ([node("Relu", "x", "r"), node("Mul", "r d", "h")], False),
        ([node("Identity", "x", "h")], False),
    ],
)
def test_which_activations_are_never_negative(nodes: list[helper.NodeProto], expected: bool) -> None:
    constants = {"c": np.array(0.5, np.float32), "d": np.array(-0.5, np.float32)}
    model = ir_model(net(nodes, {"x": [1, 2, 4]}, {"h": [1, 2, 4]}, constants))
    assert rows.never_negative(model.graph.outputs[0]) == expected


def test_no_correction_where_activations_are_never_negative() -> None:
    quantized = by_row(nets.mlp((16, 32, 8)))
    kinds = [node.op_type for node in quantized.graph.node]
    assert kinds.count("QuantizeLinear") == 2
    assert kinds.count("ReduceMin") == kinds.count("Gemm") == 1


def test_operators_whose_kernel_takes_one_scale_say_so(bench: Bench) -> None:
    model = net(
        [node("MatMul", "x W", "y"), node("MatMul", "x V", "z")],
        {"x": [2, 3, 16]}, {"y": [2, 3, 8], "z": [2, 3, 8]}, {"W": normal(16, 8), "V": normal(2, 16, 8)},
    )  # fmt: skip
    bench.give(model, {"x": normal(6, 2, 3, 16)}, "feeds")
    outcome = bench.run(activation_scale="row")
    assert outcome.nodes["MatMul_y"]["how"] == "QInt8 per channel, activations per row"
    assert outcome.nodes["MatMul_z"]["how"] == "QInt8 per channel, activations per tensor"
    assert "Some quantized nodes (MatMul) keep one activation scale per tensor" in " ".join(outcome.said.split())


def test_what_reads_a_product_still_knows_how_wide_it_is() -> None:
    """Without the width, ONNX's shape inference of Attention fails, and ONNX Runtime refuses the file."""
    nodes = [
        node("MatMul", "x W", "z"),
        helper.make_node("Split", ["z"], ["q", "k", "v"], axis=-1, num_outputs=3),
        helper.make_node("Attention", ["q", "k", "v"], ["a"], q_num_heads=2, kv_num_heads=2),
        node("Add", "a x", "y"),
    ]
    model = net(nodes, {"x": ["B", "T", 16]}, {"y": ["B", "T", 16]}, {"W": normal(16, 48)}, opset=23)
    assert nets.sqnr_db(model, by_row(model), [{"x": normal(2, 5, 16)}]) > 25
