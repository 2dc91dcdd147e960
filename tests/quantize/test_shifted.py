"""Convolutions along one axis as sums of row-wise products: any geometry, and no position depends on another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from stages.common.base.params import Quantize
from stages.common.model import sessions
from stages.quantize.methods import shifted
from tests.onnx_models import opened
from tests.quantize import nets
from tests.quantize.nets import net, node, normal


def convolution(
    kernel: list[int], axes: int = 1, channels: int = 8, filters: int = 5, **attributes: object
) -> ModelProto:
    """A Conv with a bias over [N, channels, ...]."""
    weight, bias = normal(filters, channels, *kernel), normal(filters, seed=1)
    sizes = [f"d{axis}" for axis in range(len(kernel))]
    return net(
        [node("Conv", "x W b", "y", **attributes)], {"x": ["N", channels, *sizes]}, {"y": ["N", filters, *sizes]},
        {"W": weight, "b": bias},
    )  # fmt: skip


def by_row(model: ModelProto) -> ModelProto:
    quantized, outcomes = nets.quantized(model, activation_scale="row", op_types=["Conv"])
    assert [outcome.how for outcome in outcomes.values()] == ["QInt8 per channel, activations per position"]
    return quantized


def run(model: ModelProto, x: np.ndarray) -> np.ndarray:
    answer: np.ndarray = sessions.run(opened(model), {"x": x}, name="net")[0]
    return answer


@given(
    places=st.integers(1, 5), axis=st.integers(0, 1), spatial=st.integers(1, 2), stride=st.integers(1, 3),
    dilation=st.integers(1, 2), pads=st.tuples(st.integers(0, 2), st.integers(0, 2)), positive=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_geometry(
    places: int, axis: int, spatial: int, stride: int, dilation: int, pads: tuple[int, int], positive: bool
) -> None:
    axis %= spatial
    one = [1] * spatial
    kernel, strides, dilations = list(one), [stride] * spatial, list(one)
    kernel[axis], dilations[axis] = places, dilation
    padding = [0] * (2 * spatial)
    padding[axis], padding[spatial + axis] = pads
    model = convolution(kernel, strides=strides, dilations=dilations, pads=padding)
    x = normal(2, 8, *[11, 9][:spatial], seed=3)
    x = np.abs(x) if positive else x
    expected, found = run(model, x), run(by_row(model), x)
    assert found.shape == expected.shape
    noise, signal = np.square(found - expected).mean(), np.square(expected).mean()
    assert noise < 1e-3 * signal


def test_no_position_depends_on_another() -> None:
    model = by_row(convolution([3], pads=[1, 1]))
    x = normal(3, 8, 20)
    loud = x.copy()
    loud[1:] *= 1000  # other samples
    loud[0, :, 10:] *= 1000  # other positions
    np.testing.assert_allclose(run(model, loud)[0, :, :9], run(model, x)[0, :, :9], rtol=0, atol=1e-5)


def test_a_node_keeps_its_name_once() -> None:
    names = [node.name for node in by_row(convolution([3])).graph.node]
    assert names.count("Conv_y") == 1
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "model",
    [
        convolution([3, 3]),
        convolution([3], channels=4),
        convolution([17]),
        convolution([3], auto_pad="SAME_UPPER"),
    ],
    ids=["square kernel", "few channels", "long kernel", "padding by size"],
)
def test_others_have_a_scale_per_tensor(model: ModelProto) -> None:
    _, outcomes = nets.quantized(model, activation_scale="row", op_types=["Conv"])
    assert [outcome.how for outcome in outcomes.values()] == ["QInt8 per channel, activations per tensor"]


def test_which_weights_suit() -> None:
    assert Quantize().activation_scale == "tensor"
    assert shifted.suited((512, 256, 1, 5))
    assert shifted.suited((16, 8, 1, 1))
    assert not shifted.suited((16, 8, 3, 3))
    assert not shifted.suited((258, 1, 256))
