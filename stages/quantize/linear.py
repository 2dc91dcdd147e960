"""Linear quantization of a weight: values = (quantized - zero point) * scale. Pure NumPy.

The same scales as ONNX Runtime's quantizer: signed weights are symmetric (zero point 0, range +-127), unsigned ones
cover [min(values, 0), max(values, 0)].
"""

import math
from dataclasses import dataclass

import numpy as np

LEAST_ROW = 8
"""Rows of a table narrower than this have no scale each: its 4 bytes would take what INT8 saves."""

_ROWS = 4096
"""About how many rows of a table decide."""

_CHUNK = 1 << 20
"""Values that are held in double precision at once."""


@dataclass(frozen=True)
class Quantized:
    """A weight in 8 bits.

    Attributes:
        values: int8 or uint8, the shape of the weight.
        scale: float32; of the shape of the weight with 1 in place of every reduced axis, so that it broadcasts.
        zero_point: of the dtype of `values` and the shape of `scale`; all zero where the weight is signed.
    """

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray

    def dequantized(self) -> np.ndarray:
        """The float32 values that the quantized ones stand for."""
        # In place: a weight may be a good part of the memory there is.
        floats = self.values.astype(np.float32)
        floats -= self.zero_point.astype(np.float32)
        floats *= self.scale
        return floats


def quantize(
    weight: np.ndarray,
    weight_type: str,
    channel_axes: tuple[int, ...],
    reduce_range: bool,
    least: np.ndarray | float = 0,
) -> Quantized:
    """Quantize to the nearest of 8 bits, ties to even.

    Args:
        weight: float32, finite, not empty.
        weight_type: QInt8 or QUInt8.
        channel_axes: one scale for each index along these axes; empty for one scale in all.
        reduce_range: use 7 of the 8 bits.
        least: the scales are at least this; a number, or of the shape of `Quantized.scale`.
    """
    signed = weight_type == "QInt8"
    reduced = tuple(axis for axis in range(weight.ndim) if axis not in channel_axes)
    lowest, highest = _range(signed, reduce_range)
    low = np.minimum(weight.min(axis=reduced, keepdims=True), 0).astype(np.float64)
    high = np.maximum(weight.max(axis=reduced, keepdims=True), 0).astype(np.float64)
    if signed:
        high = np.maximum(-low, high)
        low = -high
    scale = over_tiny(np.maximum((high - low) / (highest - lowest), least).astype(np.float32))
    dtype = np.int8 if signed else np.uint8
    zero_point = np.zeros_like(scale) if signed else np.rint(lowest - low / scale).clip(lowest, highest)
    values = weight / scale
    np.rint(values, out=values)
    values += zero_point
    np.clip(values, lowest, highest, out=values)
    return Quantized(values.astype(dtype), scale, zero_point.astype(dtype))


def table_axes(table: np.ndarray) -> tuple[int, ...]:
    """What has a scale each in a table of signed weights, [rows, columns]: rows (0), columns (1), or neither.

    Whichever keeps the rows closer, each by its own measure: a table of few rows, such as that of token types, or one
    in which a few columns hold the large values, does better by columns.
    """
    if table.shape[1] < LEAST_ROW:
        return ()
    largest = np.maximum(table.max(axis=0), -table.min(axis=0)) / 127
    part = table[:: max(1, len(table) // _ROWS)]
    lengths = np.linalg.norm(part, axis=1, keepdims=True)
    lengths[lengths == 0] = 1

    def kept_closely(axes: tuple[int, ...]) -> float:
        least = largest[None] if axes == (1,) else 0
        return sqnr_db(part / lengths, quantize(part, "QInt8", axes, False, least).dequantized() / lengths)

    return max(((0,), (1,)), key=kept_closely)


def over_tiny(scale: np.ndarray) -> np.ndarray:
    """Scales with 1 in place of those that underflow, of weights that are zero or next to it: any will do."""
    return np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)


def sqnr_db(weight: np.ndarray, approximation: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio, 10 log10(sum w^2 / sum (w - w')^2), in dB; infinite where they are equal."""
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
