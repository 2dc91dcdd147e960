"""Ranges of activations, compared with all values that the model computes."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from stages.quantize.methods.static import ranges
from tests.onnx_models import ir_model

ROWS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)


def model() -> onnx.ModelProto:
    """x @ W = h, relu(h) = y, and the index of the largest h."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "W"], ["h"]),
            helper.make_node("Relu", ["h"], ["y"]),
            helper.make_node("ArgMax", ["h"], ["index"], axis=1),
            helper.make_node("Squeeze", ["index"], ["answer"]),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5]),
            helper.make_tensor_value_info("answer", TensorProto.INT64, ["N"]),
        ],
        [numpy_helper.from_array(WEIGHT, "W")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds() -> Iterator[dict[str, np.ndarray]]:
    return ({"x": ROWS[at : at + 8]} for at in range(0, len(ROWS), 8))


HIDDEN = ROWS @ WEIGHT


def test_minmax_of_few_samples_is_the_whole_range() -> None:
    found = ranges.collect(ir_model(model()), ["x", "h", "y", "index"], lambda: [{"x": ROWS[:11]}], "minmax")
    assert set(found) == {"x", "h", "y"}  # an index is not a float
    np.testing.assert_allclose(found["h"], (HIDDEN[:11].min(), HIDDEN[:11].max()), rtol=1e-5)
    np.testing.assert_allclose(found["y"], (0, HIDDEN[:11].max()), rtol=1e-5)


def test_ranges_are_those_of_the_samples_however_they_are_served() -> None:
    alone = ranges.collect(ir_model(model()), ["x", "h"], lambda: [{"x": row[None]} for row in ROWS[:32]], "minmax")
    together = ranges.collect(ir_model(model()), ["x", "h"], lambda: [{"x": ROWS[:32]}], "minmax")
    assert alone["x"] == together["x"]
    assert alone["h"] == pytest.approx(together["h"], rel=1e-5)
    assert alone["x"][1] > ROWS[:32].max()


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_scalar_has_a_range_and_an_empty_tensor_none(method: str) -> None:
    body = "(float[n, m] x, float s) => (float[n, m] y) { t = Add (s, s)  u = Mul (x, t)  y = Relu (u) }"
    scaled = ir_model(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {body}'))
    feed = {"x": np.zeros((0, 3), np.float32), "s": np.array(2.0, np.float32)}
    found = ranges.collect(scaled, ["x", "s", "t", "u"], lambda: [feed], method)
    assert set(found) == {"s", "t"}
    assert found["t"][1] == pytest.approx(4, rel=0.01)


def test_minmax_of_many_samples_holds_most_unseen_ones_too() -> None:
    random = np.random.default_rng(0)
    missed = []
    for _ in range(20):
        seen, unseen = random.normal(size=(24, 1, 6)), random.normal(size=(6 * 24, 6))
        rows = [{"x": row.astype(np.float32)} for row in seen]
        low, high = ranges.collect(ir_model(model()), ["h"], rows.copy, "minmax")["h"]
        hidden = unseen @ WEIGHT
        known = seen @ WEIGHT
        missed.append([(hidden < low) | (hidden > high), (hidden < known.min()) | (hidden > known.max())])
    extended, seen_only = np.mean(missed, axis=(0, 2, 3))
    assert extended < seen_only / 2


@given(st.integers(0, 999), st.integers(12, 200), st.floats(0.01, 100), st.floats(-100, 100))
def test_the_largest_value_to_expect_follows_units_and_order(seed: int, feeds: int, scale: float, shift: float) -> None:
    largest = np.random.default_rng(seed).exponential(size=feeds)
    expected = ranges.expected_largest(largest)
    assert expected >= largest.max()
    assert ranges.expected_largest(scale * largest[::-1] + shift) == pytest.approx(scale * expected + shift, abs=1e-6)
    assert ranges.expected_largest(largest, times=1) == largest.max()


def test_the_largest_value_to_expect_is_right_on_average_for_an_exponential_tail() -> None:
    random = np.random.default_rng(0)
    expected = np.mean([ranges.expected_largest(random.exponential(size=64)) for _ in range(2000)])
    assert expected == pytest.approx(np.mean(random.exponential(size=(2000, 6 * 64)).max(axis=1)), rel=0.03)


def test_bounds_and_lone_outliers_do_not_extend_a_range() -> None:
    random = np.random.default_rng(0)
    assert ranges.expected_largest(np.full(64, 255.0)) == 255
    bounded = np.minimum(random.normal(5, 2, size=64), 6.0)  # Relu6
    assert ranges.expected_largest(bounded) == 6
    assert ranges.expected_largest(np.arange(11.0)) == 10  # too few
    assert ranges.expected_largest(np.append(random.uniform(size=63), 1000.0)) < 1001


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_the_other_methods_stay_inside_and_know_no_order(method: str) -> None:
    found = ranges.collect(ir_model(model()), ["h", "y"], feeds, method)
    low, high = found["h"]
    assert HIDDEN.min() - 1e-5 <= low < 0 < high <= HIDDEN.max() + 1e-5
    assert found["y"][0] == 0
    assert found == ranges.collect(ir_model(model()), ["y", "h"], lambda: reversed(list(feeds())), method)


def test_what_is_not_finite_is_left_out_of_account() -> None:
    spoiled = ROWS[:11].copy()
    spoiled[3, 2], spoiled[5, 1] = np.nan, np.inf
    low, high = ranges.collect(ir_model(model()), ["x"], lambda: [{"x": spoiled}], "minmax")["x"]
    assert (low, high) == (ROWS[:11].min(), ROWS[:11].max())
    assert (
        ranges.collect(ir_model(model()), ["x"], lambda: [{"x": np.full((1, 6), np.nan, np.float32)}], "entropy") == {}
    )


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_constant_activation_has_a_range(method: str) -> None:
    low, high = ranges.collect(ir_model(model()), ["x"], lambda: [{"x": np.full((2, 6), 3.0, np.float32)}], method)["x"]
    assert low <= 3 <= high + 1e-5


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_memory_does_not_grow_with_the_samples(method: str) -> None:
    sample = np.random.default_rng(0).normal(size=(20_000, 6)).astype(np.float32)

    def peak(samples: int) -> int:
        tracemalloc.start()
        ranges.collect(ir_model(model()), ["x", "h", "y"], lambda: ({"x": sample} for _ in range(samples)), method)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(12) < 1.5 * peak(3)


@given(st.integers(0, 999), st.floats(50, 99.9))
def test_a_percentile_range_holds_the_share_it_is_named_for(seed: int, percent: float) -> None:
    values = np.random.default_rng(seed).normal(size=5000)
    span = float(values.min()), float(values.max())
    counts = ranges.histogram(values, span)
    low, high = ranges.percentile_range(counts, span, percent)
    tail = (1 - percent / 100) / 2
    assert np.mean(values < low) <= tail + 1e-9
    assert np.mean(values > high) <= tail + 1e-9
    assert np.mean((values >= low) & (values <= high)) <= percent / 100 + 0.02


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.booleans())
def test_a_histogram_counts_every_value_once(values: list[float], constant: bool) -> None:
    array = np.array(values[:1] * len(values) if constant else values, np.float32)
    counts = ranges.histogram(array, (float(array.min()), float(array.max())))
    assert counts.shape == (ranges.BINS,)
    assert counts.sum() == len(values)


def test_entropy_takes_no_account_of_zeros() -> None:
    counts = ranges.histogram(np.random.default_rng(0).uniform(0, 1, 100_000), (0, 1))
    expected = ranges.entropy_threshold(counts)
    assert expected > 0.9
    counts[0] += 10_000_000  # the zeros after a Relu
    assert ranges.entropy_threshold(counts) == expected


def test_entropy_clips_outliers_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    body = np.abs(rng.normal(size=1_000_000))
    counts = ranges.histogram(np.append(body, 40.0), (0, 40))
    assert 2 < 40 * ranges.entropy_threshold(counts) < 10
    even = np.full(ranges.BINS, 100)
    assert ranges.entropy_threshold(even) > 0.9
    assert ranges.entropy_threshold(np.eye(1, ranges.BINS, ranges.BINS - 1, dtype=np.int64)[0]) == 1.0
