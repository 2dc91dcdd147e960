"""Quantiles of a stream: a histogram of logarithmic buckets with a bounded relative error."""

from dataclasses import dataclass, field

import numpy as np

RELATIVE_ERROR = 0.005
"""A quantile is reported within 0.5 % of a value that has exactly that rank."""

SMALLEST = 1e-18
"""Anything below counts as zero."""

LARGEST = 1e38
"""Anything above counts as this."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = float(np.log(_GAMMA))
_FIRST = int(np.ceil(np.log(SMALLEST) / _LOG_GAMMA))
_LAST = int(np.ceil(np.log(LARGEST) / _LOG_GAMMA))


@dataclass
class QuantileSketch:
    """Counts of non-negative values in buckets (g^(i-1), g^i], g = (1 + a) / (1 - a), a = `RELATIVE_ERROR`.

    DDSketch (Masson, Rim and Lee, VLDB 2019) with a fixed range. The counts are integers, so merging in any order
    gives the same sketch; it takes 105 kB however long the stream is.
    """

    zeros: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(_LAST - _FIRST + 1, dtype=np.int64))

    def update(self, values: np.ndarray) -> None:
        """Count finite values, each zero or more, float64 of any shape."""
        positive = values[values >= SMALLEST]
        self.zeros += values.size - positive.size
        keys = np.ceil(np.log(np.minimum(positive, LARGEST)) / _LOG_GAMMA).astype(np.int64)
        np.clip(keys, _FIRST, _LAST, out=keys)
        if keys.size:
            low = int(keys.min())
            counts = np.bincount(keys - low)
            self.counts[low - _FIRST : low - _FIRST + counts.size] += counts

    def merge(self, other: "QuantileSketch") -> None:
        """Add what was counted of other samples."""
        self.zeros += other.zeros
        self.counts += other.counts

    @property
    def count(self) -> int:
        """Values counted."""
        return self.zeros + int(self.counts.sum())

    def quantile(self, share: float) -> float | None:
        """The value of rank floor(share * (count - 1)), as `numpy.quantile(method="lower")`; None without values."""
        count = self.count
        if count == 0:
            return None
        rank = int(share * (count - 1))
        if rank < self.zeros:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank - self.zeros, side="right"))
        return float(2 * _GAMMA ** (_FIRST + bucket) / (_GAMMA + 1))

    def histogram(self, bins_per_decade: int) -> list[tuple[float, float, int]]:
        """Counts between powers of ten, as (low, high, count) without gaps; zeros are (0, 0, count) and come first.

        A value within `RELATIVE_ERROR` of an edge may be counted on either side.
        """
        rows = [(0.0, 0.0, self.zeros)] if self.zeros else []
        used = np.flatnonzero(self.counts)
        if not used.size:
            return rows
        values = 2 * _GAMMA ** (used + _FIRST).astype(np.float64) / (_GAMMA + 1)
        bins = np.floor(np.log10(values) * bins_per_decade).astype(np.int64)
        low = int(bins.min())
        counts = np.bincount(bins - low, weights=self.counts[used]).astype(np.int64)
        for place, count in enumerate(counts, start=low):
            rows.append((10 ** (place / bins_per_decade), 10 ** ((place + 1) / bins_per_decade), int(count)))
        return rows
