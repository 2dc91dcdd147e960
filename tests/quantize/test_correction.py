"""Corrections of static operators: the fit, its place in the file, and that only those that help are kept."""

import json

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from stages.common.base.params import Quantize
from stages.common.graph.weights import weighted_nodes
from stages.common.model import sessions
from stages.quantize import correction, methods
from stages.quantize.correction import Correction
from stages.quantize.methods import Assignment
from tests.onnx_models import ir_model
from tests.quantize.nets import net, node, normal


def biased(bias: bool = True) -> ModelProto:
    """Two Conv whose inputs are never negative, so that rounded weights move the means of their outputs."""
    inputs = " B0" if bias else ""
    nodes = [
        node("Conv", f"x W0{inputs}", "c0"),
        node("Relu", "c0", "h"),
        node("Conv", "h W1", "c1"),
        node("Relu", "c1", "y"),
    ]
    constants = {"W0": normal(16, 8, 3), "B0": normal(16, seed=1), "W1": normal(4, 16, 3, seed=2)}
    return net(nodes, {"x": ["N", 8, "L"]}, {"y": ["N", 4, "M"]}, constants)


def feeds(count: int, start: int = 0) -> list[dict[str, np.ndarray]]:
    return [{"x": np.abs(normal(2, 8, 40, seed=seed)) + 2} for seed in range(start, start + count)]


def static(model: ModelProto, calibration: list[dict[str, np.ndarray]]) -> tuple[ir.Model, ir.Model]:
    """The float model and the static one."""
    source = ir_model(model)
    assigned = [Assignment(node, Quantize(method="static")) for node in weighted_nodes(source)]
    return source, methods.quantize(source, assigned, lambda: iter(calibration))[0]


def run(model: ir.Model, feed: dict[str, np.ndarray]) -> np.ndarray:
    answer: np.ndarray = sessions.run(sessions.open_session(model, name="net"), feed, name="net")[0]
    return answer


def noise(floats: ir.Model, other: ir.Model, fresh: list[dict[str, np.ndarray]]) -> float:
    return sum(float(np.square(run(other, feed) - run(floats, feed)).sum()) for feed in fresh)


def test_it_brings_answers_nearer_on_other_samples_and_adds_nothing_to_run() -> None:
    floats, quantized = static(biased(), feeds(8))
    corrected, corrections = correction.corrected(quantized, floats, iter(feeds(8)))
    assert set(corrections) == {"Conv_c0", "Conv_c1"}
    assert noise(floats, corrected, feeds(4, 50)) < 0.7 * noise(floats, quantized, feeds(4, 50))
    operators = [sorted(node.op_type for node in model.graph) for model in (corrected, quantized)]
    assert len(operators[0]) == len(operators[1]) + 1  # the bias that the second Conv did not have


def test_replayed_from_json_it_gives_the_same_file() -> None:
    floats, quantized = static(biased(bias=False), feeds(8))
    corrected, corrections = correction.corrected(quantized, floats, iter(feeds(8)))
    assert corrections
    written = json.loads(json.dumps({name: fitted.as_json() for name, fitted in corrections.items()}))
    correction.apply(quantized, {name: Correction.from_json(numbers) for name, numbers in written.items()})
    assert ir.to_proto(quantized).SerializeToString() == ir.to_proto(corrected).SerializeToString()


def test_what_other_samples_do_not_confirm_is_left_out() -> None:
    values, other = normal(3, 50), normal(3, 50, seed=1)
    found = correction.fit([(values, 1.1 * values + 1)], [(other, other)])
    np.testing.assert_array_equal(found.factor, 1)
    np.testing.assert_array_equal(found.shift, 0)


def test_one_sample_corrects_nothing() -> None:
    floats, quantized = static(biased(), feeds(8))
    corrected, corrections = correction.corrected(quantized, floats, iter(feeds(1)))
    assert corrected is quantized
    assert not corrections


def test_a_correction_scales_and_shifts_the_output() -> None:
    source = ir_model(
        net([node("Conv", "x W", "y")], {"x": ["N", 8, "L"]}, {"y": ["N", 4, "M"]}, {"W": normal(4, 8, 3)})
    )
    assigned = [Assignment(node, Quantize(method="static")) for node in weighted_nodes(source)]
    quantized, _ = methods.quantize(source, assigned, lambda: iter(feeds(4)))
    feed = feeds(1, 9)[0]
    before = run(quantized, feed)
    factor, shift = np.array([1, 0.9, 1.02, 1], np.float32), np.array([0, 0.5, -0.25, 1], np.float32)
    correction.apply(quantized, {"Conv_y": Correction(factor, shift)})
    step = np.ptp(before) / 255  # the output has 8 bits, in the range of `before`
    expected = (before * factor[:, None] + shift[:, None]).clip(before.min(), before.max())
    np.testing.assert_allclose(run(quantized, feed), expected, atol=2 * step)


@given(
    factor=st.floats(0.6, 1.8), shift=st.floats(-5, 5), channels=st.integers(1, 4), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_the_fit_finds_what_was_done(factor: float, shift: float, channels: int, seed: int) -> None:
    given_values = normal(channels, 60, seed=seed)
    pair = given_values, np.float32(factor) * given_values + np.float32(shift)
    found = correction.fit([pair], [pair])
    at_stake = max(abs(factor - 1), abs(shift)) > 1e-3
    np.testing.assert_allclose(found.factor, factor if at_stake else 1, atol=1e-3)
    np.testing.assert_allclose(found.shift, shift if at_stake else 0, atol=2e-3)


def test_channels_that_do_not_move_stay() -> None:
    values = normal(3, 50)
    other = normal(3, 50, seed=1)
    fitted = [(values, values + np.array([[0], [1], [0]], np.float32))]
    held = [(other, other + np.array([[0], [1], [0]], np.float32))]
    found = correction.fit(fitted, held)
    np.testing.assert_array_equal(found.factor, [1, 1, 1])
    np.testing.assert_allclose(found.shift, [0, 1, 0], atol=1e-6)
