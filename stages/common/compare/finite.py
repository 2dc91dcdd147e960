"""NaN and infinities: both arrays must have them in the same places, whatever the tolerance."""

from dataclasses import dataclass, field

import numpy as np

SHOWN = 20
"""How many differing samples are kept for the message."""


@dataclass
class Finiteness:
    """Values that are not finite, and the samples where the two sides disagree about them.

    Attributes:
        values: single values seen.
        reference: how many are not finite in the reference.
        candidate: the same for the candidate.
        first: indices of the first differing samples.
    """

    values: int = 0
    reference: int = 0
    candidate: int = 0
    differing_samples: int = 0
    first: list[int] = field(default_factory=list)

    def update(self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> np.ndarray | None:
        """Compare the masks of rows [n, k].

        Returns:
            Where both are finite, bool [n, k]; None if all values are.
        """
        self.values += reference.size
        finite_reference, finite_candidate = np.isfinite(reference), np.isfinite(candidate)
        both = np.asarray(finite_reference & finite_candidate)
        if both.all():
            return None
        self.reference += int(np.count_nonzero(~finite_reference))
        self.candidate += int(np.count_nonzero(~finite_candidate))
        # Equal infinities, and NaN beside NaN, agree.
        agree = both | (reference == candidate) | (np.isnan(reference) & np.isnan(candidate))
        differing = indices[~agree.all(axis=1)]
        self.differing_samples += len(differing)
        self._keep(differing.tolist())
        return both

    def merge(self, other: "Finiteness") -> None:
        """Add what was seen of other samples."""
        self.values += other.values
        self.reference += other.reference
        self.candidate += other.candidate
        self.differing_samples += other.differing_samples
        self._keep(other.first)

    def _keep(self, samples: list[int]) -> None:
        self.first = sorted([*self.first, *samples])[:SHOWN]
