"""A weight in 8 bits, and what that costs it; while method auto searches, each is made once for all its models."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from stages.quantize import linear, portable
from stages.quantize.linear import Quantized

REMEMBERED_BYTES = 256 << 20


@dataclass(frozen=True)
class QuantizedWeight:
    """A quantized weight.

    Attributes:
        quantized: read-only.
        sqnr_db: of it.
        full_range_sqnr_db: had it not been made portable; None where it was not.
    """

    quantized: Quantized
    sqnr_db: float
    full_range_sqnr_db: float | None


_known: ContextVar[OrderedDict[tuple[object, ...], QuantizedWeight] | None] = ContextVar("_known", default=None)


@contextmanager
def remembered() -> Iterator[None]:
    """Keep what `quantize_weight` makes, the latest `REMEMBERED_BYTES` of it, until the end of the block."""
    token = _known.set(OrderedDict())
    try:
        yield
    finally:
        _known.reset(token)


def quantize_weight(
    weight: np.ndarray,
    weight_type: str,
    channel_axes: tuple[int, ...],
    *,
    reduce_range: bool,
    summed: portable.Summed,
    least: np.ndarray | float,
) -> QuantizedWeight:
    """Quantize a weight.

    Args:
        weight: float32.
        weight_type: QInt8 or QUInt8.
        channel_axes: one scale for each index along these axes.
        reduce_range: use 7 of the 8 bits.
        summed: along what pairs must not saturate; None where they may.
        least: the scales are at least this; a number, or of the shape of `Quantized.scale`.
    """

    def make() -> QuantizedWeight:
        quantized, full = linear.quantize(weight, weight_type, channel_axes, reduce_range, least), None
        if weight_type == "QInt8" and not reduce_range and summed is not None:
            full = linear.sqnr_db(weight, quantized.dequantized())
            quantized = portable.quantize(weight, summed, channel_axes, least)
        for array in (quantized.values, quantized.scale, quantized.zero_point):
            array.flags.writeable = False
        return QuantizedWeight(quantized, linear.sqnr_db(weight, quantized.dequantized()), full)

    known = _known.get()
    if known is None:
        return make()
    content = hashlib.sha256(np.ascontiguousarray(weight).data).digest()
    bound = np.asarray(least, np.float64).tobytes()
    key = (content, weight.shape, weight_type, channel_axes, reduce_range, summed, bound)
    if key not in known:
        known[key] = make()
        while len(known) > 1 and sum(entry.quantized.values.nbytes for entry in known.values()) > REMEMBERED_BYTES:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]
