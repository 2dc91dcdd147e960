"""Probabilities: how far their distribution moves (KL), and how honest their confidence is (ECE)."""

from dataclasses import dataclass, field

import numpy as np

BINS = 15
_FLOOR = 1e-12


@dataclass
class Divergence:
    """Kullback-Leibler divergence of the candidate's class probabilities from the reference's, in nats."""

    count: int = 0
    total: float = 0.0

    def update(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add probabilities, float64 [n, classes]. Zeros count as 1e-12; rows that are not finite are ignored."""
        finite = np.isfinite(reference).all(axis=1) & np.isfinite(candidate).all(axis=1)
        p, q = (np.clip(side[finite], _FLOOR, None) for side in (reference, candidate))
        if not len(p):
            return
        divergence = np.maximum((p * np.log(p / q)).sum(axis=1), 0.0)
        self.count += len(p)
        self.total += float(divergence.sum())

    def merge(self, other: "Divergence") -> None:
        """Add what was seen of other samples."""
        self.count += other.count
        self.total += other.total

    @property
    def mean(self) -> float | None:
        """None without rows."""
        return self.total / self.count if self.count else None


@dataclass
class ConfidenceError:
    """Confidence error of one model (ECE, expected calibration error): confidence against accuracy, in 15 equal bins.

    Guo et al., ICML 2017: sum over bins of (samples in bin / samples) |accuracy - mean confidence|.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    right: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def update(self, probabilities: np.ndarray, right: np.ndarray) -> None:
        """Add class probabilities, float64 [n, classes], and whether each decision was right, bool [n]."""
        finite = np.isfinite(probabilities).all(axis=1)
        confidence = probabilities[finite].max(axis=1, initial=0.0)
        bins = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self.right += np.bincount(bins[right[finite]], minlength=BINS)
        self.confidence += np.bincount(bins, weights=confidence, minlength=BINS)

    def merge(self, other: "ConfidenceError") -> None:
        """Add what was seen of other samples."""
        self.counts += other.counts
        self.right += other.right
        self.confidence += other.confidence

    @property
    def ece(self) -> float | None:
        """0 is honest; None without samples."""
        count = int(self.counts.sum())
        return float(np.abs(self.right - self.confidence).sum() / count) if count else None
