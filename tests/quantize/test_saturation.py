"""Count weights that overflow on CPUs without VNNI, compared with the sums themselves."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from stages.quantize import saturation
from tests.onnx_models import ir_model


@given(st.integers(-128, 127), st.integers(-128, 127))
def test_a_pair_is_at_risk_exactly_if_its_sum_leaves_16_bits(first: int, second: int) -> None:
    found = saturation.pairs(np.array([[first], [second]], np.int8))
    products = 255 * (first + second)
    assert found == saturation.Pairs(1, int(not -(2**15) <= products < 2**15))


def test_pairs_lie_along_the_summed_axis_and_begin_at_even_places() -> None:
    weight = np.zeros((8, 4), np.int8)
    weight[1, 0] = weight[2, 0] = 127  # neighbours, but in two pairs
    weight[0, 1] = weight[0, 2] = 127  # in two columns
    assert saturation.pairs(weight) == saturation.Pairs(16, 0)
    weight[3, 0] = 127
    assert saturation.pairs(weight) == saturation.Pairs(16, 1)


@given(st.integers(1, 9), st.integers(1, 5))
def test_reduced_range_is_never_at_risk(rows: int, columns: int) -> None:
    weight = np.random.default_rng(rows).integers(-64, 65, (rows, columns)).astype(np.int8)
    assert saturation.pairs(weight) == saturation.Pairs(rows // 2 * columns, 0)


def graph_of(nodes: Sequence[onnx.NodeProto], **constants: np.ndarray) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes), "graph", [], [], [numpy_helper.from_array(array, name) for name, array in constants.items()]
    )


def ir_of(graph: onnx.GraphProto) -> ir.Model:
    return ir_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def dequantized(name: str) -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", [f"{name}_q", "scale", f"{name}_zero"], [name])


RISKY = np.full((4, 2), 127, np.int8)


def test_dynamic_nodes_are_counted_in_subgraphs_too() -> None:
    inner = graph_of([helper.make_node("MatMulInteger", ["x", "W"], ["y"], name="inner")])
    outer = graph_of([helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=graph_of([]))], W=RISKY)
    assert saturation.of_model(ir_of(outer)) == {"inner": saturation.Pairs(4, 4)}


def test_static_nodes_are_counted_behind_dequantize_linear_only() -> None:
    nodes = [dequantized("x"), dequantized("W"), helper.make_node("MatMul", ["x", "W"], ["y"], name="layer")]
    constants = {"W_q": RISKY, "W_zero": np.zeros(1, np.int8), "x_zero": np.zeros(1, np.uint8)}
    graph = graph_of(nodes, **constants, scale=np.ones(1, np.float32))
    assert saturation.of_model(ir_of(graph)) == {"layer": saturation.Pairs(4, 4)}
    graph = graph_of([helper.make_node("MatMul", ["x", "W"], ["y"])], W=RISKY)
    assert saturation.of_model(ir_of(graph)) == {}


def static(op_type: str, weight: np.ndarray, **attributes: int) -> saturation.Pairs:
    graph = graph_of(
        [dequantized("x"), dequantized("W"), helper.make_node(op_type, ["x", "W"], ["y"], name="layer", **attributes)],
        W_q=weight, W_zero=np.zeros(1, np.int8), x_zero=np.zeros(1, np.uint8), scale=np.ones(1, np.float32),
    )  # fmt: skip
    return saturation.of_model(ir_of(graph))["layer"]


def test_a_transposed_gemm_sums_along_its_second_axis() -> None:
    weight = np.array([[127, 127], [0, 0]], np.int8)
    assert static("Gemm", weight, transB=1) == saturation.Pairs(2, 1)
    assert static("Gemm", weight) == saturation.Pairs(2, 0)


def test_a_convolution_sums_channel_by_channel() -> None:
    weight = np.zeros((1, 2, 1, 2), np.int8)
    weight[0, 0, 0] = 127  # one channel, two positions
    assert static("Conv", weight).at_risk == 0
    weight[0, :, 0, 0] = 127  # two channels, one position
    assert static("Conv", weight).at_risk == 1
    assert static("Conv", np.full((4, 1, 3, 3), 127, np.int8), group=4) == saturation.Pairs(0, 0)
    assert static("Conv", np.full((1, 1, 1, 2), 127, np.int8)).at_risk == 1


def test_unsigned_weights_are_not_counted() -> None:
    graph = graph_of([helper.make_node("MatMulInteger", ["x", "W"], ["y"])], W=RISKY.astype(np.uint8))
    assert saturation.of_model(ir_of(graph)) == {}


def test_the_warning_names_share_worst_node_and_remedy() -> None:
    pairs = {"a": saturation.Pairs(1000, 1), "b": saturation.Pairs(1000, 9)}
    message = saturation.warning(pairs)
    assert message is not None
    assert "0.50%" in message
    assert "worst: b, 0.90%" in message
    assert "quantize.portable: true" in message
    assert saturation.warning({"a": saturation.Pairs(10000, 1)}) is None
    assert saturation.warning({}) is None
