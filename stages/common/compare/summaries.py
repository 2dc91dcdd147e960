"""Mergeable summaries of a stream in bounded memory: quantiles, a uniform sample, the samples that moved most."""

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RELATIVE_ERROR = 0.005
"""A reported quantile is within 0.5 % of the value of exactly that rank."""

SMALLEST = 1e-18
"""Smaller values count as zero."""

LARGEST = 1e38
"""Larger values count as this."""

SAMPLED = 2000
"""Values kept: for plots, ranks and bootstraps."""

WORST_KEPT = 20
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = float(np.log(_GAMMA))
_FIRST = int(np.ceil(np.log(SMALLEST) / _LOG_GAMMA))
_LAST = int(np.ceil(np.log(LARGEST) / _LOG_GAMMA))


@dataclass
class QuantileSketch:
    """Counts of non-negative values in buckets (g^(i-1), g^i], g = (1 + a) / (1 - a), a = `RELATIVE_ERROR`.

    DDSketch (Masson, Rim and Lee, VLDB 2019) with a fixed range. Counts are integers, so merging in any order gives the
    same sketch; it takes 105 kB, however long the stream is.
    """

    zeros: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(_LAST - _FIRST + 1, dtype=np.int64))

    def update(self, values: np.ndarray) -> None:
        """Count finite values of zero or more, float64 of any shape."""
        positive = values[values >= SMALLEST]
        self.zeros += values.size - positive.size
        keys = np.ceil(np.log(np.minimum(positive, LARGEST)) / _LOG_GAMMA).astype(np.int64)
        np.clip(keys, _FIRST, _LAST, out=keys)
        if keys.size:
            low = int(keys.min())
            counts = np.bincount(keys - low)
            self.counts[low - _FIRST : low - _FIRST + counts.size] += counts

    def merge(self, other: "QuantileSketch") -> None:
        self.zeros += other.zeros
        self.counts += other.counts

    @property
    def count(self) -> int:
        """Values counted."""
        return self.zeros + int(self.counts.sum())

    def quantile(self, share: float) -> float | None:
        """The value of rank floor(share * (count - 1)), as in `numpy.quantile(method="lower")`; None without values."""
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


@dataclass
class BottomK:
    """The `SAMPLED` places (sample, position) with the smallest hash: uniform, mergeable, and without a seed.

    Bottom-k sampling (Cohen and Kaplan, PODC 2007).

    Attributes:
        samples: index of the sample of each kept place, int64 [kept].
        values: the values there, one column per array, float64 [kept, arrays].
    """

    keys: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    samples: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    values: np.ndarray | None = None

    def update(self, indices: np.ndarray, *arrays: np.ndarray, keep: np.ndarray | None = None) -> None:
        """Offer rows: indices of samples, int64 [n]; arrays [n, k]; and which values may be drawn, bool [n, k]."""
        keys = _mixed(_mixed(indices.astype(np.uint64))[:, None] + np.arange(arrays[0].shape[1], dtype=np.uint64))
        drawn = keys <= self.keys[-1] if len(self.keys) == SAMPLED else np.ones(keys.shape, dtype=bool)
        if keep is not None:
            drawn &= keep
        if np.count_nonzero(drawn) > SAMPLED:  # sorting them all would take longer than everything else
            drawn &= keys <= np.partition(keys[drawn], SAMPLED - 1)[SAMPLED - 1]
        rows, columns = np.nonzero(drawn)
        picked = np.stack([array[rows, columns].astype(np.float64) for array in arrays], axis=1)
        self._keep(keys[rows, columns], indices[rows], picked)

    def merge(self, other: "BottomK") -> None:
        if other.values is not None:
            self._keep(other.keys, other.samples, other.values)

    def _keep(self, keys: np.ndarray, samples: np.ndarray, values: np.ndarray) -> None:
        keys = np.concatenate((self.keys, keys))
        order = np.argsort(keys, kind="stable")[:SAMPLED]
        self.keys = keys[order]
        self.samples = np.concatenate((self.samples, samples))[order]
        self.values = (values if self.values is None else np.concatenate((self.values, values)))[order]


@dataclass(frozen=True)
class WorstSample:
    """The value that moved most in a sample; `position` counts along the flattened output."""

    error: float
    sample: int
    position: int
    reference: Any
    candidate: Any


@dataclass
class Worst:
    """The `WORST_KEPT` samples with the largest error, each by its worst value; equal errors by the lower index."""

    samples: list[WorstSample] = field(default_factory=list)

    def update(self, indices: np.ndarray, error: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add rows [n, k], k >= 1; `error` is zero or more, infinite where no tolerance can accept it."""
        positions = error.argmax(axis=1)
        largest = error[np.arange(len(error)), positions]
        floor = self.samples[-1].error if len(self.samples) == WORST_KEPT else 0.0
        rows = np.flatnonzero((largest >= floor) & (largest > 0))
        if len(rows) > WORST_KEPT:
            rows = rows[np.lexsort((indices[rows], -largest[rows]))[:WORST_KEPT]]
        at = positions[rows]
        columns = (largest[rows], indices[rows], at, reference[rows, at], candidate[rows, at])
        self._keep([WorstSample(*row) for row in zip(*(column.tolist() for column in columns), strict=True)])

    def merge(self, other: "Worst") -> None:
        self._keep(other.samples)

    def _keep(self, more: list[WorstSample]) -> None:
        self.samples = heapq.nsmallest(
            WORST_KEPT, [*self.samples, *more], key=lambda worst: (-worst.error, worst.sample)
        )


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), uint64 of any shape."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, float64 [n], of values [n]; equal values share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places])
