"""Weight-only quantization: the block-wise operators, their answers, and what is kept float."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from stages.common.base.params import WeightOnly
from stages.common.model import model_file, sessions
from tests.onnx_models import ir_model, opened
from tests.quantize import nets
from tests.quantize.nets import net, node, normal

FLOOR_DB = {"QInt8": 30, "QUInt8": 30, "QInt4": 10, "QUInt4": 10}


@pytest.mark.parametrize("weight_type", FLOOR_DB)
@pytest.mark.parametrize("symmetric", [True, False])
def test_an_mlp_gets_smaller_and_keeps_its_answers(weight_type: str, symmetric: bool) -> None:
    model = nets.mlp((64, 96, 64))
    options = WeightOnly(symmetric=symmetric, accuracy_level=0)
    quantized, decisions = nets.quantized(model, method="weight_only", weight_type=weight_type, weight_only=options)
    assert all(decision.quantized for decision in decisions.values())
    bits = 8 if "8" in weight_type else 4
    kind = "symmetric" if symmetric else "asymmetric"
    assert {decision.how for decision in decisions.values()} == {f"{bits} bits in {kind} blocks of 32"}
    assert nets.kernels(quantized)["MatMulNBits"] == 2
    assert model_file.weight_bytes(ir_model(quantized)) < model_file.weight_bytes(ir_model(model)) * (bits + 2) / 32
    assert nets.sqnr_db(model, quantized) > FLOOR_DB[weight_type]


@given(
    widths=st.lists(st.integers(1, 80), min_size=2, max_size=4),
    weight_type=st.sampled_from(sorted(FLOOR_DB)),
    block_size=st.sampled_from([16, 32, 64, 128, 256]),
    symmetric=st.booleans(),
    level=st.sampled_from([0, 1, 4]),
)
@settings(max_examples=25, deadline=None)
def test_any_mlp_keeps_its_answers(
    widths: list[int], weight_type: str, block_size: int, symmetric: bool, level: int
) -> None:
    model = nets.mlp(widths)
    options = {"block_size": block_size, "symmetric": symmetric, "accuracy_level": level}
    quantized, decisions = nets.quantized(model, method="weight_only", weight_type=weight_type, weight_only=options)
    assert model_file.weight_bytes(ir_model(quantized)) <= model_file.weight_bytes(ir_model(model))
    assert all(decision.quantized or "would take" in decision.reason for decision in decisions.values())
    assert nets.sqnr_db(model, quantized) > FLOOR_DB[weight_type] - 8


@pytest.mark.parametrize(
    "attributes", [{}, {"alpha": 0.5}, {"beta": 2.0}, {"beta": 0.0}, {"transB": 1, "alpha": 3.0, "beta": 0.5}]
)
def test_a_gemm_becomes_a_product_and_a_sum(attributes: dict[str, float]) -> None:
    weight = normal(40, 48) if "transB" in attributes else normal(48, 40)
    model = net(
        [node("Gemm", "x W b", "y", **attributes)],
        {"x": ["N", 48]}, {"y": ["N", 40]}, {"W": weight, "b": normal(40, seed=3)},
    )  # fmt: skip
    quantized, decisions = nets.quantized(model, method="weight_only")
    assert decisions["Gemm_y"].quantized
    assert nets.kernels(quantized)["MatMulNBits"] == 1
    assert "Gemm" not in nets.kernels(quantized)
    assert nets.sqnr_db(model, quantized) > 30


def lookup(rows: int = 50, columns: int = 40, axis: int = 0) -> ModelProto:
    graph = helper.make_graph(
        [node("Gather", "E ids", "y", axis=axis)],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "T"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(normal(rows, columns), "E")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("weight_type", FLOOR_DB)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("columns", [40, 64, 34, 8])
def test_a_lookup_is_stored_in_blocks(weight_type: str, symmetric: bool, columns: int) -> None:
    model = lookup(columns=columns)
    options = WeightOnly(symmetric=symmetric)
    quantized, decisions = nets.quantized(model, [], method="weight_only", weight_type=weight_type, weight_only=options)
    assert decisions["Gather_y"].quantized
    assert nets.kernels(quantized)["GatherBlockQuantized"] == 1
    feed = {"ids": np.array([[0, 49, -1], [7, 7, 3]])}
    a, b = (sessions.run(opened(candidate), feed, name="net")[0] for candidate in (model, quantized))
    np.testing.assert_allclose(a, b, atol=0.03 if "8" in weight_type else 0.5)


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (lookup(axis=1), "Gather_y", "does not look up rows"),
        (
            net([node("MatMul", "W x", "y")], {"x": [40, "N"]}, {"y": [48, "N"]}, {"W": normal(48, 40)}),
            "MatMul_y",
            "weight is on the left",
        ),
        (
            net([node("MatMul", "x W", "y")], {"x": [2, 5, 48]}, {"y": [2, 5, 40]}, {"W": normal(2, 48, 40)}),
            "MatMul_y",
            "its weight has 3 dimensions",
        ),
        (
            net([node("MatMul", "x W", "y")], {"x": ["N", 3]}, {"y": ["N", 40]}, {"W": normal(3, 40)}),
            "MatMul_y",
            "its weight of 480 bytes would take 1440 in blocks of 32",
        ),
        (
            net([node("Gemm", "x W", "y", transA=1)], {"x": [48, 5]}, {"y": [5, 40]}, {"W": normal(48, 40)}),
            "Gemm_y",
            "transposes its activations",
        ),
    ],
)
def test_what_has_no_block_wise_form_stays_float_and_says_why(model: ModelProto, name: str, reason: str) -> None:
    quantized, decisions = nets.quantized(model, [], method="weight_only")
    assert not decisions[name].quantized
    assert reason in decisions[name].reason
    assert quantized == model


def test_a_lookup_whose_rows_end_within_a_byte_stays_float() -> None:
    for weight_type, quantized in (("QInt8", True), ("QInt4", False)):
        _, decisions = nets.quantized(lookup(columns=33), [], method="weight_only", weight_type=weight_type)
        assert decisions["Gather_y"].quantized == quantized
    assert "its rows of 33 values do not fill whole bytes" in decisions["Gather_y"].reason


def test_a_tied_weight_is_quantized_for_both_that_use_it() -> None:
    nodes = [node("MatMul", "x W", "y"), node("MatMul", "z W", "v")]
    model = net(nodes, {"x": ["N", 48], "z": ["N", 48]}, {"y": ["N", 40], "v": ["N", 40]}, {"W": normal(48, 40)})
    quantized, _ = nets.quantized(model, method="weight_only")
    assert [tensor.name for tensor in quantized.graph.initializer] == ["W_int8", "W_int8_scale"]


def test_the_answers_do_not_depend_on_the_batch() -> None:
    quantized, _ = nets.quantized(nets.mlp((64, 96, 10)), method="weight_only", weight_type="QInt4")
    session = opened(quantized)
    x = normal(8, 64)
    together = sessions.run(session, {"x": x}, name="net")[0]
    alone = np.concatenate([sessions.run(session, {"x": row[None]}, name="net")[0] for row in x])
    np.testing.assert_allclose(together, alone, atol=1e-4)
