"""What a session returns, as named arrays: sequences of maps (ZipMap) become one array of scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def as_arrays(names: Sequence[str], values: Sequence[Any]) -> dict[str, np.ndarray]:
    """Outputs of one run by name, each as an array.

    A sequence of maps with one map a sample (ZipMap) becomes float scores of shape [samples, keys], keys sorted.
    """
    return {name: _as_array(value) for name, value in zip(names, values, strict=True)}


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        keys = sorted({key for each in value for key in each})
        return np.array([[each.get(key, np.nan) for key in keys] for each in value])
    return np.asarray(value)
