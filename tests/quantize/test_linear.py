"""Linear quantization of a weight, compared with its definition and with ONNX Runtime's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto
from onnxruntime.quantization.quant_utils import quantize_data

from stages.quantize import linear

FLOATS = st.floats(-1e3, 1e3, width=32)
WEIGHTS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=FLOATS)
TYPES = st.sampled_from(["QInt8", "QUInt8"])


@given(WEIGHTS, TYPES, st.booleans(), st.booleans())
def test_no_value_moves_by_more_than_half_a_step(
    weight: np.ndarray, kind: str, per_channel: bool, reduce_range: bool
) -> None:
    axes = (weight.ndim - 1,) if per_channel else ()
    quantized = linear.quantize(weight, kind, axes, reduce_range)
    # The zero point is rounded, too, so an unsigned value may be clipped by another half step.
    steps = 0.5 if kind == "QInt8" else 1.0
    limit = quantized.scale * (steps + 1e-3)
    # Below the smallest normal float32 scale, everything is zero.
    assert np.all(np.abs(quantized.dequantized() - weight) <= np.maximum(limit, np.finfo(np.float32).tiny * 300))


@given(WEIGHTS, TYPES, st.booleans())
def test_zero_stays_zero_and_values_stay_in_range(weight: np.ndarray, kind: str, reduce_range: bool) -> None:
    weight[(0,) * weight.ndim] = 0
    quantized = linear.quantize(weight, kind, (), reduce_range)
    assert quantized.dequantized()[(0,) * weight.ndim] == 0
    lowest, highest = {
        ("QInt8", False): (-127, 127),
        ("QInt8", True): (-64, 64),
        ("QUInt8", False): (0, 255),
        ("QUInt8", True): (0, 127),
    }[kind, reduce_range]
    assert quantized.values.dtype == (np.int8 if kind == "QInt8" else np.uint8)
    assert lowest <= quantized.values.min() and quantized.values.max() <= highest


@given(WEIGHTS, st.booleans())
def test_the_same_as_onnx_runtime_within_a_step(weight: np.ndarray, reduce_range: bool) -> None:
    theirs = quantize_data(weight, TensorProto.INT8, symmetric=True, reduce_range=reduce_range)
    zero_point, scale, values = (np.asarray(array) for array in theirs[-3:])
    ours = linear.quantize(weight, "QInt8", (), reduce_range)
    assert int(zero_point) == 0
    np.testing.assert_allclose(ours.scale.ravel(), scale, rtol=1e-6)
    assert np.max(np.abs(ours.values.astype(int) - values.astype(int))) <= 1


@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("value", [0.0, 1e-45, 3e38])
def test_extremes(kind: str, value: float) -> None:
    weight = np.full((2, 3), value, np.float32)
    quantized = linear.quantize(weight, kind, (1,), reduce_range=False)
    assert np.isfinite(quantized.scale).all() and (quantized.scale > 0).all()
    np.testing.assert_allclose(quantized.dequantized(), weight, rtol=1e-2, atol=1e-37)


def test_sqnr_of_known_cases() -> None:
    weight = np.array([3.0, 4.0], np.float32)
    assert linear.sqnr_db(weight, weight) == math.inf
    assert linear.sqnr_db(weight, weight + np.array([0.3, 0.4], np.float32)) == pytest.approx(20, abs=1e-4)
    assert linear.sqnr_db(np.zeros(2, np.float32), weight) == -math.inf
