"""Quantize a weight to 8 bits and measure the loss, with a cache for the many models of method auto."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from stages.quantize import linear, portable
from stages.quantize.linear import Quantized

CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class QuantizedWeight:
    """A quantized weight.

    Attributes:
        quantized: values, scales and zero points; read-only.
        sqnr_db: its signal-to-quantization-noise ratio.
        full_range_sqnr_db: the ratio that `portable: false` would give; None for a weight that is not portable.
    """

    quantized: Quantized
    sqnr_db: float
    full_range_sqnr_db: float | None


_cache: ContextVar[OrderedDict[tuple[object, ...], QuantizedWeight] | None] = ContextVar("_cache", default=None)


@contextmanager
def cached() -> Iterator[None]:
    """Cache the latest `CACHE_BYTES` of weights from `quantize_weight` until the end of the block."""
    token = _cache.set(OrderedDict())
    try:
        yield
    finally:
        _cache.reset(token)


def quantize_weight(
    weight: np.ndarray,
    weight_type: str,
    channel_axes: tuple[int, ...],
    *,
    reduce_range: bool,
    summed: portable.Summed,
    pairs: bool = True,
    min_scale: np.ndarray | float,
) -> QuantizedWeight:
    """Quantize a weight.

    Args:
        weight: float32.
        weight_type: QInt8 or QUInt8.
        channel_axes: axes with one scale per index.
        reduce_range: use 7 of the 8 bits.
        summed: what the kernel sums along, if rounding errors along it are to cancel; None for plain rounding.
        pairs: whether pairs along it must not saturate either.
        min_scale: lower bound of the scales, a number or an array of the shape of `Quantized.scale`.
    """

    def make() -> QuantizedWeight:
        quantized, full = linear.quantize(weight, weight_type, channel_axes, reduce_range, min_scale), None
        if weight_type == "QInt8" and not reduce_range and summed is not None:
            full = linear.sqnr_db(weight, quantized.dequantized()) if pairs else None
            quantized = portable.quantize(weight, summed, channel_axes, min_scale, pairs)
        for array in (quantized.values, quantized.scale, quantized.zero_point):
            array.flags.writeable = False
        return QuantizedWeight(quantized, linear.sqnr_db(weight, quantized.dequantized()), full)

    cache = _cache.get()
    if cache is None:
        return make()
    content = hashlib.sha256(np.ascontiguousarray(weight).data).digest()
    bound = np.asarray(min_scale, np.float64).tobytes()
    key = (content, weight.shape, weight_type, channel_axes, reduce_range, summed, pairs, bound)
    if key not in cache:
        cache[key] = make()
        while len(cache) > 1 and sum(entry.quantized.values.nbytes for entry in cache.values()) > CACHE_BYTES:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]
