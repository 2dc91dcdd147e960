"""Which quantized models must not be published, and which rewritten ones are no longer the same model."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stages.common.graph import equivalence
from stages.quantize import check
from tests.onnx_models import ir_model, reference
from tests.quantize.running import graph, normal

FEEDS = [{"x": normal(1, 8, seed=at)} for at in range(4)]


def _model(op_type: str = "Identity", *constants: float, name: str = "y") -> onnx.ModelProto:
    """Output = op(x, constants...)."""
    weights = {f"c{at}": np.array(value, np.float32) for at, value in enumerate(constants)}
    node = helper.make_node(op_type, ["x", *weights], [name], "only")
    return graph([node], {"x": ("n", 8)}, {name: None}, weights)


def _expected(model: onnx.ModelProto) -> equivalence.Reference:
    return reference(model, FEEDS)


def fault(model: onnx.ModelProto, expected: equivalence.Reference) -> str:
    return check.fault(ir_model(model), expected)


def difference(model: onnx.ModelProto, expected: equivalence.Reference) -> str:
    return equivalence.difference(ir_model(model), expected)


def test_the_same_model_has_no_fault_and_no_difference() -> None:
    expected = _expected(_model())
    assert fault(_model(), expected) == ""
    assert difference(_model(), expected) == ""


def test_a_small_change_is_a_difference_and_no_fault() -> None:
    expected = _expected(_model())
    assert difference(_model("Mul", 1.001), expected).startswith("output 'y' moved by 0.00")
    assert fault(_model("Mul", 1.001), expected) == ""


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_model("Mul", np.nan), "output 'y' has NaN or infinity where fp32 has none"),
        (_model("Mul", np.inf), "output 'y' has NaN or infinity where fp32 has none"),
        (_model("Neg"), "output 'y' has a cosine similarity of -1.000 to fp32, below 0.98"),
        (_model("Mul", 0.0), "output 'y' has a cosine similarity of 0.000"),
        (_model("ReduceMax"), "output 'y' has shape (1, 1) instead of (1, 8)"),
        (_model(name="z"), "its interface changed at y"),
        (_model("Mystery"), "ONNX Runtime refuses it: "),
    ],
)
def test_faults(model: onnx.ModelProto, words: str) -> None:
    assert words in fault(model, _expected(_model()))


@pytest.mark.parametrize(("thresholds", "broken"), [([9.0], False), ([9.0, 8.0], True)])
def test_one_feed_that_falls_on_the_other_side_breaks_nothing(thresholds: list[float], broken: bool) -> None:
    def decided(threshold: float) -> onnx.ModelProto:
        return graph(
            [
                helper.make_node("Greater", ["x", "t"], ["above"]),
                helper.make_node("Cast", ["above"], ["h"], to=TensorProto.FLOAT),
                helper.make_node("Concat", ["h", "one"], ["y"], axis=1),
            ],
            {"x": (1, 8)}, {"y": (1, 9)}, {"t": np.array(threshold, np.float32), "one": np.ones((1, 1), np.float32)},
        )  # fmt: skip

    feeds = [{"x": np.full((1, 8), value, np.float32)} for value in (1, 2, 3, 4, 5, 6, *thresholds, 20, 21)]
    assert bool(fault(decided(9.5), reference(decided(7.0), feeds))) == broken


def test_what_is_not_finite_in_fp32_is_not_compared() -> None:
    expected = _expected(_model("Log"))
    assert fault(_model("Log"), expected) == ""
    assert difference(_model("Log"), expected) == ""


def test_a_changed_label_is_a_difference_and_no_fault() -> None:
    def label(last: int) -> onnx.ModelProto:
        node = helper.make_node("ArgMax", ["x"], ["y"], axis=1, select_last_index=last)
        model = graph([node], {"x": ("n", 8)}, {"y": None}, {})
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
        return model

    ties = [{"x": np.zeros((1, 8), np.float32)}]
    expected = reference(label(0), ties)
    assert difference(label(1), expected) == "output 'y' changed"
    assert fault(label(1), expected) == ""


def test_how_many_rows_an_output_has_may_depend_on_a_threshold() -> None:
    """As for the boxes of a detector: if the declared size is free, it is up to parity to judge a change."""

    def found(threshold: float, free: bool) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Reshape", ["x", "flat"], ["values"]),
            helper.make_node("Greater", ["values", "threshold"], ["good"]),
            helper.make_node("Compress", ["values", "good"], ["kept"]),
            helper.make_node("Identity", ["kept"] if free else ["x"], ["y"]),
        ]
        weights = {"flat": np.array([-1]), "threshold": np.array(threshold, np.float32)}
        return graph(nodes, {"x": ("n", 8)}, {"y": ("boxes",) if free else (1, 8)}, weights)

    assert fault(found(0.5, free=True), _expected(found(0.0, free=True))) == ""
    assert "has shape" in difference(found(0.5, free=True), _expected(found(0.0, free=True)))
    assert "has shape" in fault(found(0.0, free=True), _expected(found(0.0, free=False)))


def test_the_same_outputs_in_another_order_are_a_fault() -> None:
    def two(first: str, second: str) -> onnx.ModelProto:
        nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])]
        return graph(nodes, {"x": ("n", 8)}, {first: ("n", 8), second: ("n", 8)}, {})

    assert fault(two("b", "a"), _expected(two("a", "b"))) == "its interface is in another order"
