"""Inputs generated from the declared shapes, for a model without evaluation data."""

import math

import numpy as np
import onnxruntime as ort

from stages.common.base.errors import StageError
from stages.common.data.feeding import input_dtype

FREE_DIM = 16
"""The size of an open dimension other than the batch."""


def generated_feed(session: ort.InferenceSession, batch: int, seed: int) -> dict[str, np.ndarray]:
    """One feed: floats from a standard normal distribution, integers and booleans 0 or 1, text "a".

    An open dimension has the size `batch` if it comes first or has the name of one that does, else FREE_DIM.

    Raises:
        StageError: an input has a type that numpy arrays cannot hold.
    """
    random = np.random.default_rng(seed)
    wanted = session.get_inputs()
    batches = {arg.shape[0] for arg in wanted if arg.shape and isinstance(arg.shape[0], str)}
    feed: dict[str, np.ndarray] = {}
    for arg in wanted:
        shape = [
            size if isinstance(size, int) else batch if axis == 0 or size in batches else FREE_DIM
            for axis, size in enumerate(arg.shape)
        ]
        feed[arg.name] = _values(arg, shape, random)
    return feed


def _values(arg: ort.NodeArg, shape: list[int], random: np.random.Generator) -> np.ndarray:
    dtype = input_dtype(arg)
    if dtype is None:
        raise StageError(f"No values can be generated for the model input '{arg.name}' of type {arg.type}.")
    if dtype == "text":
        return np.full(shape, "a", dtype=object)
    if np.dtype(dtype).kind == "f":
        return random.standard_normal(math.prod(shape)).reshape(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)
