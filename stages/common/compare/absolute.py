"""The absolute difference of two float arrays: mean, maximum and quantiles."""

from dataclasses import dataclass, field

import numpy as np

from stages.common.compare.sketch import QuantileSketch


@dataclass
class AbsoluteDifference:
    """|candidate - reference| over all values seen."""

    count: int = 0
    total: float = 0.0
    largest: float = 0.0
    sketch: QuantileSketch = field(default_factory=QuantileSketch)

    def update(self, difference: np.ndarray) -> None:
        """Add finite differences, float64 of any shape."""
        if not difference.size:
            return
        absolute = np.abs(difference)
        self.count += absolute.size
        self.total += float(absolute.sum())
        self.largest = max(self.largest, float(absolute.max()))
        self.sketch.update(absolute)

    def merge(self, other: "AbsoluteDifference") -> None:
        """Add what was seen of other samples."""
        self.count += other.count
        self.total += other.total
        self.largest = max(self.largest, other.largest)
        self.sketch.merge(other.sketch)

    @property
    def maximum(self) -> float | None:
        """None without values."""
        return self.largest if self.count else None

    @property
    def mean(self) -> float | None:
        """None without values."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Within `sketch.RELATIVE_ERROR` of the exact one, and never above the maximum; None without values."""
        value = self.sketch.quantile(share)
        return None if value is None else min(value, self.largest)
