"""Signal and noise: the SQNR of a quantized signal, and the range of the reference."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class SignalNoise:
    """Sums of squares of the reference (signal) and of the difference (noise), and the reference's extrema."""

    signal: float = 0.0
    noise: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def update(self, reference: np.ndarray, difference: np.ndarray) -> None:
        """Add finite values, float64 of one shape."""
        if not reference.size:
            return
        # Not np.dot: BLAS starts threads for it, and its sum depends on how many.
        self.signal += float(np.square(reference).sum())
        self.noise += float(np.square(difference).sum())
        self.low = min(self.low, float(reference.min()))
        self.high = max(self.high, float(reference.max()))

    def merge(self, other: "SignalNoise") -> None:
        self.signal += other.signal
        self.noise += other.noise
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(sum reference^2 / sum difference^2), in dB; infinite for no noise, None where both are zero."""
        if self.noise == 0:
            return math.inf if self.signal else None
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def span(self) -> float | None:
        """Width of the reference's range; None for no values."""
        return self.high - self.low if self.high >= self.low else None
