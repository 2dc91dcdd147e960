"""Cosine similarity of each sample: does the output still point the same way?"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class CosineSimilarity:
    """Minimum and mean over samples. Two zero rows agree (1); a zero row beside another does not (0)."""

    count: int = 0
    total: float = 0.0
    smallest: float = math.inf
    sample: int | None = None

    def update(self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add rows [n, k] of finite float64. A single value has no direction: nothing is counted for k = 1."""
        if reference.shape[1] < 2 or not len(reference):
            return
        # Scaled first: squares of float64 values beyond 1e154 overflow.
        scaled = [_unit(rows) for rows in (reference, candidate)]
        similarity = np.clip(np.einsum("ij,ij->i", *scaled), -1.0, 1.0)
        zero = [~rows.any(axis=1) for rows in (reference, candidate)]
        similarity[zero[0] & zero[1]] = 1.0
        self.count += len(similarity)
        self.total += float(similarity.sum())
        at = int(similarity.argmin())
        self._lower(float(similarity[at]), int(indices[at]))

    def merge(self, other: "CosineSimilarity") -> None:
        """Add what was seen of other samples."""
        self.count += other.count
        self.total += other.total
        if other.sample is not None:
            self._lower(other.smallest, other.sample)

    @property
    def minimum(self) -> float | None:
        """None where nothing was counted."""
        return self.smallest if self.count else None

    @property
    def mean(self) -> float | None:
        """None where nothing was counted."""
        return self.total / self.count if self.count else None

    def _lower(self, similarity: float, sample: int) -> None:
        if self.sample is None or (similarity, sample) < (self.smallest, self.sample):
            self.smallest, self.sample = similarity, sample


def _unit(rows: np.ndarray) -> np.ndarray:
    peak = np.abs(rows).max(axis=1, keepdims=True)
    peak[peak == 0] = 1.0
    scaled = rows / peak
    length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    length[length == 0] = 1.0
    return np.asarray(scaled / length)
