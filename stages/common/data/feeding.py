"""Feeding a model: whether the evaluation data fits it, its batch size, and generated inputs where there is no data."""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import onnxruntime as ort

from stages.common.base.errors import StageError
from stages.common.data.evaldata import EvalInput, Layout

# ONNX Runtime's element types -> numpy's. Types without a numpy counterpart (bfloat16, float8) cannot be fed.
_SAME = ("float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
_DTYPES = {"float": "float32", "double": "float64", "string": "text", **dict(zip(_SAME, _SAME, strict=True))}

_TENSOR = re.compile(r"(?:optional\()?tensor\((\w+)\)+")

FREE_DIM = 16
"""The size of an open dimension other than the batch, in generated inputs."""


def input_dtype(model_input: ort.NodeArg) -> str | None:
    """The numpy dtype of a model input, "text" for strings; None if numpy has no such dtype."""
    tensor = _TENSOR.fullmatch(model_input.type)
    return _DTYPES.get(tensor[1]) if tensor else None


def check_fit(session: ort.InferenceSession, arrays: Iterable[EvalInput], layout: Layout) -> None:
    """Check the evaluation data against the names, dtypes, ranks and fixed dimensions of the model's inputs.

    Raises:
        StageError: an input has no array, an array has no input, or a dtype or a shape differs.
    """
    required = {model_input.name: model_input for model_input in session.get_inputs()}
    known = required | {model_input.name: model_input for model_input in session.get_overridable_initializers()}
    given = {array.name: array for array in arrays}
    if missing := [name for name in required if name not in given]:
        raise StageError(
            f"The evaluation data has no array for the model input '{missing[0]}'; it holds {_names(given)}. "
            "Name each array after its input."
        )
    if extra := [name for name in given if name not in known]:
        raise StageError(
            f"The evaluation data holds '{extra[0]}', which is not an input of the model; its inputs are "
            f"{_names(known)}. Remove it, or name it after its input."
        )
    for name, array in given.items():
        _check_dtype(known[name], array)
        _check_shape(known[name], array, layout)


def fixed_batch(session: ort.InferenceSession, layout: Layout) -> int | None:
    """The batch size that the model's inputs prescribe; None if it is free, or if each sample is a whole feed.

    Raises:
        StageError: inputs prescribe different sizes, so axis 0 cannot count samples.
    """
    if layout == "feeds":
        return None
    sizes = {
        model_input.name: model_input.shape[0]
        for model_input in session.get_inputs()
        if model_input.shape and isinstance(model_input.shape[0], int)
    }
    if len(set(sizes.values())) > 1:
        raise StageError(
            f"Axis 0 of the model's inputs is fixed at different sizes ({sizes}), so it cannot count samples. "
            "Give whole feeds, and set export.eval_layout to feeds."
        )
    return next(iter(sizes.values()), None)


def feed_batch(session: ort.InferenceSession, layout: Layout, wanted: int) -> int:
    """Samples in one call: what the model prescribes, else `wanted`; 1 if each sample is a whole feed."""
    return 1 if layout == "feeds" else (fixed_batch(session, layout) or wanted)


def generated_feed(session: ort.InferenceSession, batch: int, seed: int) -> dict[str, np.ndarray]:
    """One feed with the declared shapes: floats from a standard normal distribution, text "a".

    Integers and booleans are 0 or 1. An open dimension has the size `batch` if it comes first, or if it has the name of
    one that does; else FREE_DIM.

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


def _names(names: Iterable[str]) -> str:
    listed = [f"'{name}'" for name in names]
    shown = ", ".join(listed[:8])
    return f"{shown} and {len(listed) - 8} more" if len(listed) > 8 else shown or "nothing"


def _check_dtype(model_input: ort.NodeArg, array: EvalInput) -> None:
    expected = input_dtype(model_input)
    if expected is None:
        raise StageError(
            f"The model input '{model_input.name}' has the type {model_input.type}, which numpy arrays cannot hold. "
            "Make it a float32 tensor and cast inside the model."
        )
    given = "text" if np.dtype(array.dtype).kind in "OUS" else array.dtype
    if given != expected:
        remedy = "dtype str" if expected == "text" else f".astype(np.{expected})"
        raise StageError(
            f"The model input '{model_input.name}' expects {expected}, but the evaluation data is {given}. "
            f"Convert it: {remedy}."
        )


def _check_shape(model_input: ort.NodeArg, array: EvalInput, layout: Layout) -> None:
    expected = list(model_input.shape)
    if not expected:  # a scalar, or an open rank: only running the model shows whether it fits
        return
    shape = [expected[0], *array.shape] if layout == "samples" else list(array.shape)
    fits = len(expected) == len(shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(expected, shape, strict=False)
    )
    if not fits:
        other = "feeds" if layout == "samples" else "samples"
        raise StageError(
            f"The model input '{model_input.name}' expects the shape {_shape(expected)}, but the evaluation data has "
            f"{_shape(shape)} (export.eval_layout is {layout}). Reshape it, or set export.eval_layout to {other}."
        )


def _shape(dims: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in dims) + "]"


def _values(arg: ort.NodeArg, shape: list[int], random: np.random.Generator) -> np.ndarray:
    dtype = input_dtype(arg)
    if dtype is None:
        raise StageError(f"No values can be generated for the model input '{arg.name}' of type {arg.type}.")
    if dtype == "text":
        return np.full(shape, "a", dtype=object)
    if np.dtype(dtype).kind == "f":
        return random.standard_normal(math.prod(shape)).reshape(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)
