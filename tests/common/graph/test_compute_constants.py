"""Weights that nodes compute from constants become constants, and nothing else changes."""

import numpy as np
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from stages.common.graph import equivalence
from stages.common.graph.passes import compute_constants
from tests.common.graph.models import dense
from tests.onnx_models import applied, ir_model, opened, reference
from tests.quantize.running import graph, normal, run

X = {"x": normal(4, 16)}


def test_a_weight_computed_from_another_is_computed_too() -> None:
    nodes = [
        helper.make_node("Transpose", ["T"], ["W"]),
        helper.make_node("Transpose", ["W"], ["V"]),
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("MatMul", ["h", "V"], ["y"]),
    ]
    model = graph(nodes, {"x": ("n", 16)}, {"y": None}, {"T": normal(8, 16)})
    folded, _ = applied(compute_constants.apply, model)
    assert {tensor.name for tensor in folded.graph.initializer} == {"W", "V"}
    assert equivalence.difference(ir_model(folded), reference(model, [X])) == ""


def test_what_is_no_float_stays_as_it_is() -> None:
    nodes = [
        helper.make_node("Constant", [], ["table"], value_ints=[3, 1, 2]),
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["y"]),
    ]
    assert not applied(compute_constants.apply, graph(nodes, {"x": ("n",)}, {"y": None}, {}))[1]


def test_a_bias_is_computed_too() -> None:
    nodes = [
        helper.make_node("Identity", ["c"], ["b"]),
        helper.make_node("Gemm", ["x", "W", "b"], ["y"]),
    ]
    folded, _ = applied(
        compute_constants.apply, graph(nodes, {"x": ("n", 16)}, {"y": None}, {"W": normal(16, 8), "c": normal(8)})
    )
    assert {tensor.name for tensor in folded.graph.initializer} == {"W", "b"}


def test_a_constant_that_another_node_needs_stays() -> None:
    model = dense()
    model.graph.node.append(helper.make_node("Identity", ["T"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (8, 16)))
    folded, _ = applied(compute_constants.apply, model)
    assert {tensor.name for tensor in folded.graph.initializer} == {"T", "W"}
    opened(folded)


def test_a_weight_that_is_an_output_too_stays_computed() -> None:
    model = dense()
    model.graph.output.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, (16, 8)))
    assert not applied(compute_constants.apply, model)[1]


def test_random_weights_are_not_computed_beforehand() -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["W"], shape=[16, 8]),
        helper.make_node("MatMul", ["x", "W"], ["y"]),
    ]
    assert not applied(compute_constants.apply, graph(nodes, {"x": ("n", 16)}, {"y": None}, {}))[1]


_CUT = """<ir_version: 8, opset_import: ["" : 17]>
attention (float[n, t, {width}] x) => (float[n, t, m] y)
<int64 last = {{{index}}}, int64[1] zero = {{0}}, int64 two = {{2}}, int64[1] first = {{0}}, int64[1] over = {{9}}> {{
    shape = Shape(x)
    {pick}
    half = Div(number, two)
    column = Unsqueeze(half, zero)
    part = Slice(T, zero, column, zero)
    W = Transpose<perm = [1, 0]>(part)
    y = MatMul(x, W)
}}"""


@pytest.mark.parametrize(
    ("width", "index", "pick", "folded"),
    [
        ("32", 2, "number = Gather(shape, last)", True),
        ("32", -1, "number = Gather(shape, last)", True),
        ("32", 0, "rest = Slice(shape, two_, over)\n    number = Squeeze(rest, zero)", True),
        ("32", 0, "rest = Shape<start = 2>(x)\n    number = Squeeze(rest, zero)", True),
        ("w", 2, "number = Gather(shape, last)", False),
        ("32", 1, "number = Gather(shape, last)", False),
    ],
)
def test_a_weight_that_is_cut_by_a_fixed_size_is_a_constant(width: str, index: int, pick: str, folded: bool) -> None:
    """As in torch's MultiheadAttention. If the size differs from run to run, so does the weight, and it stays."""
    model = onnx.parser.parse_model(_CUT.format(width=width, index=index, pick=pick))
    model.graph.initializer.append(numpy_helper.from_array(normal(64, 32), "T"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "two_"))
    result, modified = applied(compute_constants.apply, model)
    assert modified == folded
    assert ("W" in {tensor.name for tensor in result.graph.initializer}) == folded
    for tokens in (4, 6):
        x = {"x": normal(2, tokens, 32)}
        expected, actual = (run(opened(candidate), x)["y"] for candidate in (model, result))
        np.testing.assert_array_equal(expected, actual)
