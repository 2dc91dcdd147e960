"""Smoothing changes no float answer and reduces the noise that outliers cause; without a gain it is not applied."""

from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from stages.common.base.params import Quantize
from stages.common.graph.weights import weighted_nodes
from stages.common.model import sessions
from stages.quantize import methods
from stages.quantize.methods import Assignment, smooth
from stages.quantize.methods.static.ranges import Known
from stages.quantize.outcome import NodeOutcome
from tests.onnx_models import ir_model
from tests.quantize.nets import net, node, normal

Scale = Literal["tensor", "row"]

OUTLIERS = np.where(np.arange(24) % 8 == 0, np.float32(60), np.float32(1))


def products(trans_b: bool = False) -> ModelProto:
    """A MatMul and a Gemm that read one activation of 24 channels."""
    second = normal(24, 6, seed=1)
    nodes = [node("Relu", "x", "h"), node("MatMul", "h W", "y"), node("Gemm", "h V", "z", transB=int(trans_b))]
    constants = {"W": normal(24, 9), "V": np.ascontiguousarray(second.T) if trans_b else second}
    return net(nodes, {"x": ["N", 24]}, {"y": ["N", 9], "z": ["N", 6]}, constants)


def feeds(scale: np.ndarray, count: int = 6) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(4, 24, seed=seed) * scale} for seed in range(count)]


def smoothed(
    model: ModelProto, given_feeds: list[dict[str, np.ndarray]], scale: Scale = "tensor"
) -> tuple[ir.Model, ir.Model, dict[str, NodeOutcome]]:
    """The float model, the smoothed one, and the outcomes of nodes that were not smoothed."""
    source = ir_model(model)
    params = Quantize(activation_scale=scale)
    assigned = [Assignment(node, params, smoothed=True) for node in weighted_nodes(source)]
    result, outcomes = smooth.apply(source, assigned, lambda: iter(given_feeds))
    return source, result, outcomes


def run(model: ir.Model, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return sessions.run(sessions.open_session(model, name="net"), feed, name="net")


@pytest.mark.parametrize("trans_b", [False, True])
def test_the_float_answers_are_the_same_bits_and_one_mul_serves_both(trans_b: bool) -> None:
    given_feeds = feeds(OUTLIERS)
    source, result, outcomes = smoothed(products(trans_b), given_feeds)
    assert not outcomes
    assert [node.op_type for node in result.graph].count("Mul") == 1
    for feed in given_feeds:
        for before, after in zip(run(source, feed), run(result, feed), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_recurrent_layer_gives_the_same_bits(direction: str) -> None:
    both, given_feeds = 1 + (direction != "forward"), [{"x": feed["x"][None]} for feed in feeds(OUTLIERS)]
    layer = node("LSTM", "x W R", "y", hidden_size=5, direction=direction)
    constants = {"W": normal(both, 20, 24), "R": normal(both, 20, 5, seed=1)}
    source, result, outcomes = smoothed(net([layer], {"x": [1, 4, 24]}, {"y": [1, both, 4, 5]}, constants), given_feeds)
    assert not outcomes
    assert [node.op_type for node in result.graph] == ["Mul", "LSTM"]
    for feed in given_feeds:
        np.testing.assert_array_equal(run(source, feed)[0], run(result, feed)[0])


def test_what_is_known_is_not_searched_again() -> None:
    source = ir_model(products())
    replayed = Known(lambda: iter([]), "minmax", smoothing={("tensor", "MatMul_y", "Gemm_z"): [0, 3, *[0] * 22]})
    assigned = [Assignment(node, Quantize(), smoothed=True) for node in weighted_nodes(source)]
    result, outcomes = smooth.apply(source, assigned, replayed)
    assert not outcomes
    factor = next(value for name, value in result.graph.initializers.items() if name.endswith("smoothing"))
    assert factor.const_value is not None
    np.testing.assert_array_equal(factor.const_value.numpy(), [1, 0.125, *[1] * 22])


def test_without_outliers_nothing_is_done() -> None:
    _, result, outcomes = smoothed(products(), feeds(np.ones(24, np.float32)))
    assert set(outcomes) == {"MatMul_y", "Gemm_z"}
    assert "Mul" not in [node.op_type for node in result.graph]


@pytest.mark.parametrize("scale", ["tensor", "row"])
def test_quantized_it_is_closer_to_float(scale: Scale) -> None:
    source = ir_model(products())
    params, calibration, fresh = Quantize(activation_scale=scale), feeds(OUTLIERS), feeds(OUTLIERS, 9)[6:]
    noises = []
    for smoothed_first in (False, True):
        assigned = [Assignment(node, params, smoothed=smoothed_first) for node in weighted_nodes(source)]
        result, outcomes = methods.quantize(source, assigned, lambda: iter(calibration))
        assert all(outcome.quantized for outcome in outcomes.values())
        pairs = [(run(source, feed), run(result, feed)) for feed in fresh]
        noises.append(
            sum(float(np.square(b - a).sum()) for before, after in pairs for a, b in zip(before, after, strict=True))
        )
    assert noises[1] < 0.25 * noises[0]  # 6 dB


magnitudes = st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=12)


@given(activation=magnitudes, exponent=st.sampled_from(smooth.EXPONENTS), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_larger_channels_are_divided_by_more(activation: list[float], exponent: float, seed: int) -> None:
    largest = np.array(activation, np.float32)
    weight = np.abs(normal(len(activation), seed=seed)) + np.float32(0.1)
    powers = smooth.powers_of_two(largest, weight, exponent)
    assert (powers[largest == 0] == 0).all()
    assert (np.abs(powers) <= 12).all()
    same = smooth.powers_of_two(largest, np.ones_like(weight), exponent)
    order = np.argsort(largest[largest > 0], kind="stable")
    assert (np.diff(same[largest > 0][order]) >= 0).all()


def test_noise_is_that_of_eight_bits() -> None:
    rows, weight = normal(200, 32), normal(32, 16, seed=1)
    by_tensor, by_row = (smooth.noise(rows, weight, by_row) for by_row in (False, True))
    assert 1e-5 < by_row < by_tensor < 1e-3
    rows[0] *= 100
    assert smooth.noise(rows, weight, True) < 0.1 * smooth.noise(rows, weight, False)
    assert smooth.noise(np.zeros((2, 32), np.float32), weight, False) == 0
