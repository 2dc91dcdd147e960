"""Linear quantization of a weight: weight = (quantized - zero point) * scale. Pure NumPy.

Scales are those of ONNX Runtime's quantizer: signed weights are symmetric (zero point 0, range +-127), unsigned ones
cover [min(weight, 0), max(weight, 0)].
"""

import math
from dataclasses import dataclass

import numpy as np

MIN_ROW = 8
"""A table with shorter rows gets one scale: 4 bytes per row would use up what INT8 saves."""

_ROWS = 4096
"""About how many rows of a table are sampled."""

_CHUNK = 1 << 20
"""Values in double precision at a time."""


@dataclass(frozen=True)
class Quantized:
    """A weight in 8 bits.

    Attributes:
        values: int8 or uint8, the shape of the weight.
        scale: float32, the shape of the weight with 1 for every reduced axis, so that it broadcasts.
        zero_point: the dtype of `values` and the shape of `scale`; all zero if the weight is signed.
    """

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray

    def dequantized(self) -> np.ndarray:
        """The float32 values that the quantized ones represent."""
        # In place, because a weight may be large.
        floats = self.values.astype(np.float32)
        floats -= self.zero_point.astype(np.float32)
        floats *= self.scale
        return floats


def quantize(
    weight: np.ndarray,
    weight_type: str,
    channel_axes: tuple[int, ...],
    reduce_range: bool,
    min_scale: np.ndarray | float = 0,
) -> Quantized:
    """Quantize to 8 bits, rounding to nearest, ties to even.

    Args:
        weight: float32, finite, not empty.
        weight_type: QInt8 or QUInt8.
        channel_axes: axes with one scale per index; empty for a single scale.
        reduce_range: use 7 of the 8 bits.
        min_scale: lower bound of the scales, a number or an array of the shape of `Quantized.scale`.
    """
    signed = weight_type == "QInt8"
    reduced = tuple(axis for axis in range(weight.ndim) if axis not in channel_axes)
    lowest, highest = _range(signed, reduce_range)
    low = np.minimum(weight.min(axis=reduced, keepdims=True), 0).astype(np.float64)
    high = np.maximum(weight.max(axis=reduced, keepdims=True), 0).astype(np.float64)
    if signed:
        high = np.maximum(-low, high)
        low = -high
    scale = without_underflow(np.maximum((high - low) / (highest - lowest), min_scale).astype(np.float32))
    dtype = np.int8 if signed else np.uint8
    zero_point = np.zeros_like(scale) if signed else np.rint(lowest - low / scale).clip(lowest, highest)
    values = weight / scale
    np.rint(values, out=values)
    values += zero_point
    np.clip(values, lowest, highest, out=values)
    return Quantized(values.astype(dtype), scale, zero_point.astype(dtype))


def table_axes(table: np.ndarray) -> tuple[int, ...]:
    """The axis with one scale per index in a table of signed weights, [rows, columns]: (0,), (1,), or () for one scale.

    It is the one with the higher SQNR of the rows, each divided by its norm. Columns do better in a table with few
    rows, such as that of token types, and in one whose large values are in a few columns.
    """
    if table.shape[1] < MIN_ROW:
        return ()
    largest = np.maximum(table.max(axis=0), -table.min(axis=0)) / 127
    part = table[:: max(1, len(table) // _ROWS)]
    lengths = np.linalg.norm(part, axis=1, keepdims=True)
    lengths[lengths == 0] = 1

    def row_sqnr(axes: tuple[int, ...]) -> float:
        min_scale = largest[None] if axes == (1,) else 0
        return sqnr_db(part / lengths, quantize(part, "QInt8", axes, False, min_scale).dequantized() / lengths)

    return max(((0,), (1,)), key=row_sqnr)


def without_underflow(scale: np.ndarray) -> np.ndarray:
    """Replace scales that underflow by 1: their weights are (almost) zero, so any scale will do."""
    return np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)


def sqnr_db(weight: np.ndarray, approximation: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio, 10 log10(sum w^2 / sum (w - w')^2), in dB; infinite if they are equal."""
    signal = noise = 0.0
    for start in range(0, weight.size, _CHUNK):
        part = weight.reshape(-1)[start : start + _CHUNK].astype(np.float64)
        signal += float(part @ part)
        part -= approximation.reshape(-1)[start : start + _CHUNK]
        noise += float(part @ part)
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _range(signed: bool, reduce_range: bool) -> tuple[int, int]:
    if signed:
        return (-64, 64) if reduce_range else (-127, 127)
    return (0, 127) if reduce_range else (0, 255)
