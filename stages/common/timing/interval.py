"""The speed-up with its interval over launches: one observation per process, Student's t between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.common.base.files import rounded

Verdict = Literal["faster", "slower", "equivalent", "inconclusive"]

EQUIVALENT = 0.97
"""A speed-up from EQUIVALENT to 1 / EQUIVALENT is too small to notice. `gate.min_speedup` has the same default, so that
"not slower" means the same for the gate."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A speed-up (fp32 time over INT8 time) and the ends of its 95 % interval."""

    ratio: float
    low: float
    high: float

    @property
    def halfwidth(self) -> float:
        """The upper half-width as a share of the ratio: 0.02 is ± 2 %."""
        return self.high / self.ratio - 1

    @property
    def verdict(self) -> Verdict:
        """The verdict on the ends, rounded as in the metrics, so that readers of those come to the same."""
        low, high = rounded(self.low) or self.low, rounded(self.high) or self.high
        if low >= EQUIVALENT and high <= 1 / EQUIVALENT:
            return "equivalent"
        if low > 1:
            return "faster"
        if high < 1:
            return "slower"
        return "inconclusive"

    def covers(self, ratio: float) -> bool:
        return self.low <= ratio <= self.high

    def __str__(self) -> str:
        return f"{self.ratio:.3f} ({self.low:.3f} to {self.high:.3f})"


def over_launches(log_ratios: Sequence[float]) -> Interval:
    """The 95 % interval of the speed-up, from log(fp32 time / INT8 time) of two or more launches.

    exp(m ± t s / sqrt(P)), with the mean m and the standard deviation s (P - 1 degrees of freedom) of the P log ratios
    and t the 0.975 quantile of Student's t for P - 1 degrees of freedom: the paired t interval on the log scale, after
    Kalibera and Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013), with processes as repetitions.
    """
    from scipy.special import stdtrit

    count = len(log_ratios)
    mean = float(np.mean(log_ratios))
    margin = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2) * np.std(log_ratios, ddof=1) / math.sqrt(count))
    return Interval(math.exp(mean), math.exp(mean - margin), math.exp(mean + margin))
