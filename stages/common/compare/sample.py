"""A uniform sample of a stream, whatever order it comes in: for plots, ranks and bootstraps."""

from dataclasses import dataclass, field

import numpy as np

KEPT = 2000


@dataclass
class BottomK:
    """The `KEPT` places (sample, position) with the smallest hash: uniform, mergeable, and without a seed.

    Bottom-k sampling (Cohen and Kaplan, PODC 2007).

    Attributes:
        samples: index of the sample of each kept place, int64 [kept].
        values: the values there, one column per array, float64 [kept, arrays].
    """

    keys: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    samples: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    values: np.ndarray | None = None

    def update(self, indices: np.ndarray, *arrays: np.ndarray, keep: np.ndarray | None = None) -> None:
        """Offer rows.

        Args:
            indices: of the samples, int64 [n].
            arrays: numbers, each [n, k].
            keep: which of the values may be drawn, bool [n, k]; None for all.
        """
        keys = _mixed(_mixed(indices.astype(np.uint64))[:, None] + np.arange(arrays[0].shape[1], dtype=np.uint64))
        drawn = keys <= self.keys[-1] if len(self.keys) == KEPT else np.ones(keys.shape, dtype=bool)
        rows, columns = np.nonzero(drawn if keep is None else drawn & keep)
        picked = np.stack([array[rows, columns].astype(np.float64) for array in arrays], axis=1)
        self._keep(keys[rows, columns], indices[rows], picked)

    def merge(self, other: "BottomK") -> None:
        """Add what was drawn from other samples."""
        if other.values is not None:
            self._keep(other.keys, other.samples, other.values)

    def _keep(self, keys: np.ndarray, samples: np.ndarray, values: np.ndarray) -> None:
        keys = np.concatenate((self.keys, keys))
        order = np.argsort(keys, kind="stable")[:KEPT]
        self.keys = keys[order]
        self.samples = np.concatenate((self.samples, samples))[order]
        self.values = (values if self.values is None else np.concatenate((self.values, values)))[order]


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), uint64 of any shape."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
