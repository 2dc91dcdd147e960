"""What a session returns, as named arrays with the samples along axis 0, whatever kind of value it is."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def as_arrays(names: Sequence[str], values: Sequence[Any]) -> dict[str, np.ndarray]:
    """Outputs of one run by name, each as an array.

    A sequence of maps with one map per sample (ZipMap) becomes scores, float64 [samples, keys], keys sorted; a key that
    a map lacks is NaN. A sequence of tensors is stacked, or laid end to end where their shapes differ. An optional
    output that is empty becomes an empty array.
    """
    return {name: _as_array(value) for name, value in zip(names, values, strict=True)}


def per_sample(outputs: dict[str, np.ndarray], samples: int) -> dict[str, np.ndarray]:
    """The same outputs with `samples` along axis 0.

    An output of another length there (a state with the batch on another axis, a scalar for the whole batch) belongs
    to each sample of the batch, and is repeated as a view.
    """
    return {name: _per_sample(array, samples) for name, array in outputs.items()}


def _per_sample(array: np.ndarray, samples: int) -> np.ndarray:
    if array.ndim and array.shape[0] == samples:
        return array
    return np.broadcast_to(array, (samples, *array.shape))


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if value is None:
        return np.empty(0, dtype=np.float32)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        keys = sorted({key for mapping in value for key in mapping})
        return np.array([[mapping.get(key, np.nan) for key in keys] for mapping in value])
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        same = all(array.shape == value[0].shape for array in value)
        return np.stack(value) if same else np.concatenate([array.ravel() for array in value])
    return np.asarray(value)
