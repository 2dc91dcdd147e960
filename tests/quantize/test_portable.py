"""Weights that cannot saturate on any x86 CPU: the pairs in each layout, the files, and an emulated CPU's answers."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from benchmarks.portable import difference, emulated
from stages.common import isa
from stages.common.base import paths
from stages.quantize import portable, saturation
from tests.onnx_models import ir_model
from tests.quantize import nets
from tests.quantize.nets import net, node, normal
from tests.quantize.running import Bench, run

QEMU = shutil.which("qemu-x86_64")


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    channel=st.booleans(),
    axis=st.integers(0, 3),
    seed=st.integers(0, 999),
)
@settings(max_examples=150, deadline=None)
def test_no_pair_of_neighbours_sums_to_more_than_128(shape: list[int], channel: bool, axis: int, seed: int) -> None:
    weight = np.random.default_rng(seed).standard_t(2, shape).astype(np.float32)
    summed = axis % len(shape)
    axes = tuple(axis for axis in range(len(shape)) if axis != summed) if channel else ()
    quantized = portable.quantize(weight, summed, axes)
    assert saturation.pairs(np.moveaxis(quantized.values, summed, -2)).at_risk == 0


@given(inner=st.integers(64, 300), width=st.integers(1, 6), heavy=st.booleans(), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_errors_are_small_and_sum_to_nothing(inner: int, width: int, heavy: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    weight = (random.standard_t(3, (inner, width)) if heavy else random.normal(size=(inner, width))).astype(np.float32)
    pairs = np.abs(weight[0:-1:2] + weight[1::2]).max(axis=0)
    step = np.maximum(np.abs(weight).max(axis=0), pairs) / 127  # moves no pair: rounding is by half a step
    quantized = portable.quantize(weight, 0, (1,))
    errors = weight - quantized.dequantized()
    assert np.square(errors).sum() <= 1.5 * np.square(weight - np.rint(weight / step) * step).sum()
    if not heavy:
        assert np.all(np.abs(errors.sum(axis=0)) <= 0.51 * quantized.scale)


@given(seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_where_few_weights_share_a_step_a_tenth_of_the_error_is_saved(seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(48, 512)).astype(np.float32)
    step = np.maximum(np.abs(weight).max(axis=0), np.abs(weight[0::2] + weight[1::2]).max(axis=0)) / 127
    errors = weight - portable.quantize(weight, 0, (1,)).dequantized()
    assert np.square(errors).sum() <= 0.9 * np.square(weight - np.rint(weight / step) * step).sum()


@given(filters=st.integers(1, 5), channels=st.integers(1, 7), kernel=st.integers(1, 3), seed=st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_no_pair_of_a_convolution_does(filters: int, channels: int, kernel: int, seed: int) -> None:
    weight = np.random.default_rng(seed).standard_t(2, (filters, channels, kernel, kernel)).astype(np.float32)
    conv = net([node("Conv", "x W", "y")], {"x": [1, channels, 8, 8]}, {"y": [1, filters, None, None]}, {"W": weight})  # type: ignore[list-item]
    quantized, _ = nets.quantized(conv, method="static")
    assert all(pairs.at_risk == 0 for pairs in saturation.of_model(ir_model(quantized)).values())


def lstm() -> ModelProto:
    """A layer of 16 units with 12 inputs."""
    constants = {"W": normal(1, 64, 12), "R": normal(1, 64, 16, seed=1)}
    return net([node("LSTM", "x W R", "y", hidden_size=16)], {"x": [5, 1, 12]}, {"y": [5, 1, 1, 16]}, constants)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    ("model", "method"),
    [(nets.mlp((33, 65, 17)), "dynamic"), (nets.mlp((33, 65, 17)), "static"), (nets.conv_net(7), "static"),
     (lstm(), "dynamic")],
)  # fmt: skip
def test_a_portable_file_cannot_saturate_and_says_what_that_costs(
    bench: Bench, model: ModelProto, method: str, per_channel: bool
) -> None:
    data = {name: np.stack([feed[name] for feed in nets.feeds(model, 12)]) for name in ("x",)}
    bench.give(model, data, "feeds")
    full = bench.run(method=method, per_channel=per_channel, portable=False)
    if full.metrics["status"] == "nothing_to_quantize":
        pytest.skip("this CPU saturates so much that the model breaks: see the next test")
    assert full.metrics["saturation"]["share"] > 0
    safe = bench.run(method=method, per_channel=per_channel)
    assert safe.metrics["saturation"]["share"] == 0
    assert "Warning" not in safe.said
    for name in safe.quantized():
        mine, other = safe.nodes[name], full.nodes[name]
        assert mine["weight_sqnr_full_range_db"] == other["weight_sqnr_db"]
        assert float(mine["weight_sqnr_db"]) > float(other["weight_sqnr_db"]) - 6.1
        assert other["weight_sqnr_full_range_db"] == ""
    assert safe.metrics["size"]["int8_mb"] == pytest.approx(full.metrics["size"]["int8_mb"], rel=0.01)


@pytest.mark.skipif(isa.here() not in isa.SATURATING, reason="sums do not saturate on this CPU")
def test_a_node_that_only_saturation_breaks_gets_a_remedy_that_was_tried(bench: Bench) -> None:
    model = lstm()
    bench.give(model, {"x": np.stack([feed["x"] for feed in nets.feeds(model, 12)])}, "feeds")
    full = bench.run(method="dynamic", per_channel=True, portable=False)
    assert not full.quantized()
    assert (
        "With quantize.portable: true they do not, and 1 more node could be quantized in a trial: LSTM_y." in full.said
    )
    safe = bench.run(method="dynamic", per_channel=True)
    assert safe.quantized() == {"LSTM_y"}
    assert "saturate" not in safe.said


@pytest.mark.slow
@pytest.mark.skipif(isa.here() in isa.SATURATING, reason="this CPU has no VNNI itself")
@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 (the package qemu-user) is not installed")
@pytest.mark.parametrize(
    ("model", "method"), [(nets.mlp((64, 256, 256, 10)), "dynamic"), (nets.conv_net(16), "static")]
)
def test_the_answers_are_those_of_a_cpu_without_vnni(bench: Bench, model: ModelProto, method: str) -> None:
    """Many activations are large, as after a Relu, so that pairs of large weights can overflow."""
    given = [{"x": np.abs(feed["x"]) + 2} for feed in nets.feeds(model, 12)]
    bench.give(model, {"x": np.stack([feed["x"] for feed in given])}, "feeds")
    files, here = [], []
    for safe in (True, False):
        outcome = bench.run(method=method, portable=safe)
        here.append({"y": [run(outcome.int8, feed)["y"] for feed in given]})
        files.append((bench.folder / paths.INT8_MODEL).rename(bench.folder / f"{safe}.onnx"))
    moved = map(difference, here, emulated(files, given, ["y"], "Haswell-v4"))
    assert next(moved) < 1e-5
    assert next(moved) > 1e-3


@pytest.mark.filterwarnings("error")
def test_weights_whose_squares_are_beyond_float32_warn_of_nothing() -> None:
    weight = normal(64, 8) * np.float32(1e30)
    quantized = portable.quantize(weight, 0, (1,))
    assert np.abs(quantized.values * quantized.scale - weight).max() <= np.abs(weight).max() / 64
