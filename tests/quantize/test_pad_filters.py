"""Filters of zeros: the answers and the kernels are those without padding, between INT8 nodes and at the end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from stages.common.base.params import Quantize
from stages.common.graph.weights import weighted_nodes
from stages.common.model import ir_conversion
from stages.quantize import methods
from stages.quantize.methods import Assignment
from stages.quantize.methods.static import pad_filters
from tests.onnx_models import applied, ir_model, opened
from tests.quantize.nets import feeds, kernels, net, node, normal


def convolutions(
    filters: int, *, group: int = 1, relu: bool = True, bias: bool = True, read: bool = True
) -> ModelProto:
    """Two Conv, the first with 8 channels and `filters` filters; if `read`, another node reads its output, too."""
    weights = {"W": normal(filters, 8 // group, 3, 3), "V": normal(8, filters, 1, 1, seed=1)}
    constants = weights | ({"b": normal(filters, seed=2)} if bias else {})
    nodes = [node("Conv", "x W b" if bias else "x W", "c", pads=[1, 1, 1, 1], group=group)]
    if relu:
        nodes.append(node("Relu", "c", "h"))
    last = "h" if relu else "c"
    nodes.append(node("Conv", f"{last} V", "y"))
    outputs = {"y": [1, 8, 5, 5]}
    if read:
        nodes.append(node("Neg", last, "z"))
        outputs["z"] = [1, filters, 5, 5]
    return net(nodes, {"x": [1, 8, 5, 5]}, outputs, constants)


def static(model: ModelProto, *, padded: bool) -> ModelProto:
    source = ir_model(model)
    params = Quantize(method="static", activation_type="QUInt8")
    assigned = [Assignment(node, params, padded=padded) for node in weighted_nodes(source)]
    quantized, outcomes = methods.quantize(source, assigned, lambda: iter(feeds(model, count=3)))
    assert all(outcome.quantized for outcome in outcomes.values())
    return ir_conversion.to_proto(quantized)


@given(filters=st.integers(1, 20), relu=st.booleans(), bias=st.booleans())
@settings(max_examples=15, deadline=None)
def test_float_answers_stay(filters: int, relu: bool, bias: bool) -> None:
    model = convolutions(filters, relu=relu, bias=bias)
    rewritten, modified = applied(pad_filters.apply, model, {"Conv_c"})
    assert modified == (filters != 16)
    (weight,) = (tensor for tensor in rewritten.graph.initializer if tensor.name == rewritten.graph.node[0].input[1])
    assert weight.dims[0] % 8 == 0 and weight.dims[0] >= 16
    for feed in feeds(model, count=2):
        for before, after in zip(opened(model).run(None, feed), opened(rewritten).run(None, feed), strict=True):
            np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relu", [True, False])
def test_the_same_bits_in_int8(relu: bool) -> None:
    model = convolutions(12, relu=relu, read=False)
    plain, padded = (static(model, padded=flag) for flag in (False, True))
    run = kernels(padded)
    assert run["QLinearConv"] == 2 and run["Slice"] == 2  # V has 8 filters, too
    assert run["QuantizeLinear"] == kernels(plain)["QuantizeLinear"] == 1
    for feed in feeds(model, count=3):
        for before, after in zip(opened(plain).run(None, feed), opened(padded).run(None, feed), strict=True):
            np.testing.assert_array_equal(before, after)


def test_groups_and_filters_that_fit_stay() -> None:
    assert not applied(pad_filters.apply, convolutions(8, group=2), {"Conv_c"})[1]
    assert not applied(pad_filters.apply, convolutions(24), {"Conv_c"})[1]
