"""Ranks, equal values sharing the mean of theirs."""

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on, float64, of values [n]."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return shared
