"""The samples that moved most: a bounded list of the worst."""

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KEPT = 20


@dataclass(frozen=True)
class WorstSample:
    """The value that moved most in one sample. `position` counts along the flattened output of the sample."""

    error: float
    sample: int
    position: int
    reference: Any
    candidate: Any


@dataclass
class Worst:
    """The `KEPT` samples with the largest error, each by its worst value; equal errors by the lower index."""

    samples: list[WorstSample] = field(default_factory=list)

    def update(self, indices: np.ndarray, error: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add rows [n, k]; `error` is zero or more, infinite where no tolerance can help."""
        if not error.size:
            return
        positions = error.argmax(axis=1)
        largest = error[np.arange(len(error)), positions]
        rows = np.flatnonzero(largest >= self._floor())
        if len(rows) > KEPT:
            rows = rows[np.lexsort((indices[rows], -largest[rows]))[:KEPT]]
        moved = [
            WorstSample(
                float(largest[row]),
                int(indices[row]),
                int(positions[row]),
                _plain(reference[row, positions[row]]),
                _plain(candidate[row, positions[row]]),
            )
            for row in rows.tolist()
            if largest[row] > 0
        ]
        self._keep(moved)

    def merge(self, other: "Worst") -> None:
        """Add the worst of other samples."""
        self._keep(other.samples)

    def _floor(self) -> float:
        return self.samples[-1].error if len(self.samples) == KEPT else 0.0

    def _keep(self, more: list[WorstSample]) -> None:
        self.samples = heapq.nsmallest(KEPT, [*self.samples, *more], key=lambda worst: (-worst.error, worst.sample))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
