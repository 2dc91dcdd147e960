"""Signal and noise: SQNR and NRMSE of a quantized signal, and the range of the reference."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class SignalNoise:
    """The reference's power, spread and extrema, and the power of the difference.

    Attributes:
        count: values seen.
        signal: sum of squares of the reference.
        noise: sum of squares of the difference.
        mean: of the reference.
        spread: sum of squared distances of the reference from its mean.
    """

    count: int = 0
    signal: float = 0.0
    noise: float = 0.0
    mean: float = 0.0
    spread: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def update(self, reference: np.ndarray, difference: np.ndarray) -> None:
        """Add finite values, float64 of one shape."""
        if not reference.size:
            return
        mean = float(reference.mean())
        self.merge(
            SignalNoise(
                reference.size,
                # Not np.dot: BLAS starts threads for it, and its sum depends on how many.
                float(np.square(reference).sum()),
                float(np.square(difference).sum()),
                mean,
                float(np.square(reference - mean).sum()),
                float(reference.min()),
                float(reference.max()),
            )
        )

    def merge(self, other: "SignalNoise") -> None:
        """Add what was seen of other samples."""
        if not other.count:
            return
        total = self.count + other.count
        if self.count:
            # Means and spreads of two parts: Chan, Golub and LeVeque (1979).
            shift = other.mean - self.mean
            self.spread += other.spread + shift * shift * self.count * other.count / total
            self.mean += shift * other.count / total
        else:
            self.mean, self.spread = other.mean, other.spread
        self.count = total
        self.signal += other.signal
        self.noise += other.noise
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(sum reference^2 / sum difference^2), in dB; infinite without noise, None where both are zero."""
        if self.noise == 0:
            return math.inf if self.signal else None
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def nrmse(self) -> float | None:
        """Root mean square difference over the standard deviation of the reference: free of scale and offset.

        0 without noise, infinite where a constant reference moves, None without values.
        """
        if not self.count:
            return None
        if self.noise == 0:
            return 0.0
        return math.sqrt(self.noise / self.spread) if self.spread > 0 else math.inf

    @property
    def span(self) -> float | None:
        """Width of the reference's range; None without values."""
        return self.high - self.low if self.high >= self.low else None
