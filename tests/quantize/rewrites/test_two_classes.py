"""Softmax of two classes as Sigmoid: the same probabilities within float rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from stages.common.graph.weights import weighted_nodes
from stages.quantize.rewrites import two_classes
from tests.onnx_models import applied, ir_model, opened
from tests.quantize.nets import net, node


def scores(shape: list[int | str], *, axis: int = -1, opset: int = 13, behind: str = "Identity") -> ModelProto:
    """Softmax, and another operator after it."""
    return net([node("Softmax", "x", "p", axis=axis), node(behind, "p", "y")], {"x": shape}, {"y": shape}, {}, opset)


@given(scale=st.floats(0.01, 1e4), offset=st.floats(-1e3, 1e3), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_probabilities_agree(scale: float, offset: float, seed: int) -> None:
    model = scores(["N", 300, 2])
    rewritten, modified = applied(two_classes.apply, model)
    assert modified
    values = np.random.default_rng(seed).normal(offset, scale, (2, 300, 2)).astype(np.float32)
    before, after = (opened(candidate).run(None, {"x": values})[0] for candidate in (model, rewritten))
    np.testing.assert_allclose(after, before, rtol=0, atol=3e-7)


def test_its_matrix_is_no_weight() -> None:
    rewritten, _ = applied(two_classes.apply, scores([1, 300, 2]))
    assert [node.op_type for node in rewritten.graph.node] == ["Constant", "MatMul", "Sigmoid", "Identity"]
    assert not weighted_nodes(ir_model(rewritten))


def test_before_opset_13_the_axis_is_that_of_rows() -> None:
    assert applied(two_classes.apply, scores([300, 2], axis=1, opset=11))[1]
    assert not applied(two_classes.apply, scores([300, 2, 2], axis=1, opset=11))[1]


@pytest.mark.parametrize(
    "model",
    [
        scores(["N", 2]), scores([1, 300, 3]), scores([2, 300], axis=0), scores([1, 300, 2], behind="Log"),
    ],
    ids=["few rows", "three classes", "another axis", "a logarithm"],
)  # fmt: skip
def test_others_stay(model: ModelProto) -> None:
    assert not applied(two_classes.apply, model)[1]
