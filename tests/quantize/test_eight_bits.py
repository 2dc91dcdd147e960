"""Weights that are quantized once while method auto searches."""

import numpy as np
import pytest

from stages.quantize import eight_bits
from stages.quantize.eight_bits import QuantizedWeight, cached, quantize_weight

WEIGHT = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)


def quantize(weight: np.ndarray = WEIGHT, *, per_channel: bool = True, least: float = 0) -> QuantizedWeight:
    return quantize_weight(weight, "QInt8", (1,) if per_channel else (), reduce_range=False, summed=0, min_scale=least)


def test_equal_weights_are_quantized_once_and_others_anew() -> None:
    alone = quantize()
    with cached():
        first, again = quantize(), quantize(WEIGHT.copy())
        others = [
            quantize(WEIGHT * 2),
            quantize(per_channel=False),
            quantize(least=1.0),
            quantize(WEIGHT.reshape(8, 16)),
        ]
    assert again is first
    assert all(other is not first for other in others)
    assert quantize() is not first
    for result in (alone, first):
        assert result.sqnr_db == alone.sqnr_db
        assert np.array_equal(result.quantized.values, alone.quantized.values)
    assert others[1].quantized.scale.size == 1
    assert others[2].quantized.scale.min() == 1


def test_a_cached_weight_cannot_be_changed() -> None:
    with cached(), pytest.raises(ValueError, match="read-only"):
        quantize().quantized.values[0, 0] = 1


def test_the_oldest_weights_are_dropped_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eight_bits, "CACHE_BYTES", 2 * WEIGHT.size)
    with cached():
        first, second = quantize(), quantize(WEIGHT * 2)
        quantize()
        quantize(WEIGHT * 3)
        assert quantize() is first
        assert quantize(WEIGHT * 2) is not second
