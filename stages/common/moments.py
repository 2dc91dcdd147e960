"""Mergeable sums over pairs of values, and the error figures that follow from them."""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Figure = TypeVar("Figure", float, np.ndarray)


def pooled(
    counts: tuple[int, int], means: tuple[Figure, Figure], spreads: tuple[Figure, Figure]
) -> tuple[Figure, Figure]:
    """The mean of two parts together, and the sum of squared distances from it: Chan, Golub and LeVeque (1979).

    Args:
        counts: numbers of values, neither zero.
        means: their means, floats or float64 arrays.
        spreads: their sums of squared distances from their means, of the same kind.
    """
    (one, other), shift = counts, means[1] - means[0]
    spread = spreads[0] + (spreads[1] + shift * shift * one * other / (one + other))
    return means[0] + shift * other / (one + other), spread


@dataclass(kw_only=True)
class Moments:
    """Sums over the values that are finite in both the reference and the candidate.

    Attributes:
        compared: the number of values.
        total: sum of |candidate - reference|, `largest` its maximum.
        signal: sum of squares of the reference, `noise` of the difference.
        mean: of the reference; `spread` is the sum of squared distances from it, `low` and `high` are the extrema.
    """

    compared: int = 0
    total: float = 0.0
    largest: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    mean: float = 0.0
    spread: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @property
    def mean_abs(self) -> float | None:
        """Mean absolute difference; None without values."""
        return self.total / self.compared if self.compared else None

    @property
    def span(self) -> float | None:
        """Width of the reference's range; None without values."""
        return self.high - self.low if self.compared else None

    @property
    def nrmse(self) -> float | None:
        """RMS difference over the standard deviation of the reference: independent of scale and offset.

        0 without noise, infinite if a constant reference moves, None without values.
        """
        if not self.compared:
            return None
        if self.noise == 0:
            return 0.0
        return math.sqrt(self.noise / self.spread) if self.spread > 0 else math.inf

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(sum reference^2 / sum difference^2), in dB; infinite without noise, None if both are zero."""
        if self.noise == 0:
            return math.inf if self.signal else None
        ratio = self.signal / self.noise
        return 10 * math.log10(ratio) if ratio > 0 else -math.inf

    def add_values(self, reference: np.ndarray, difference: np.ndarray) -> None:
        """Add finite values: the reference and candidate - reference, float64 of the same shape."""
        if not reference.size:
            return
        distance = np.abs(difference)
        mean = float(reference.mean())
        self.add(
            Moments(
                compared=reference.size,
                total=float(distance.sum()),
                largest=float(distance.max()),
                # Not np.dot: BLAS uses threads for it, and the sum depends on their number.
                signal=float(np.square(reference).sum()),
                noise=float(np.square(difference).sum()),
                mean=mean,
                spread=float(np.square(reference - mean).sum()),
                low=float(reference.min()),
                high=float(reference.max()),
            )
        )

    def add(self, other: "Moments") -> None:
        """Add the sums of other values."""
        if self.compared and other.compared:
            counts = self.compared, other.compared
            self.mean, self.spread = pooled(counts, (self.mean, other.mean), (self.spread, other.spread))
        elif other.compared:
            self.mean, self.spread = other.mean, other.spread
        self.compared += other.compared
        self.total += other.total
        self.signal += other.signal
        self.noise += other.noise
        self.largest = max(self.largest, other.largest)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
