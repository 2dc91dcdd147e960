"""Do the evaluation data fit the model, and in which batches can it be fed?"""

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from stages.common.base.errors import StageError
from stages.common.data.evaldata import EvalInput, Layout

# ONNX Runtime's names of element types -> numpy's. Types without a numpy counterpart (bfloat16, float8) cannot be fed.
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "bool": "bool",
    "string": "text",
}

_TENSOR = re.compile(r"(?:optional\()?tensor\((\w+)\)+")


class ModelInput(Protocol):
    """One input as `InferenceSession.get_inputs` tells it."""

    name: str
    type: str
    shape: list[int | str | None]


class Session(Protocol):
    """What is asked of an `onnxruntime.InferenceSession` here."""

    def get_inputs(self) -> list[ModelInput]:
        """The inputs that must be fed."""

    def get_overridable_initializers(self) -> list[ModelInput]:
        """The inputs that may be fed."""


def input_dtype(wanted: ModelInput) -> str | None:
    """The numpy dtype of a model input, "text" for strings, None where numpy has none."""
    tensor = _TENSOR.fullmatch(wanted.type)
    return _DTYPES.get(tensor[1]) if tensor else None


def check_fit(session: Session, data: Iterable[EvalInput], layout: Layout) -> None:
    """Hold names, dtypes, ranks and fixed dimensions of the data against the model's inputs.

    Raises:
        StageError: an input has no data, data have no input, or a dtype or a shape differs; it names the input, what
            the model expects and what was found.
    """
    required = {each.name: each for each in session.get_inputs()}
    known = required | {each.name: each for each in session.get_overridable_initializers()}
    found = {each.name: each for each in data}
    if missing := [name for name in required if name not in found]:
        raise StageError(
            f"The evaluation data have no array for the model input '{missing[0]}'; they hold {_names(found)}. "
            "Name each array after its input."
        )
    if extra := [name for name in found if name not in known]:
        raise StageError(
            f"The evaluation data hold '{extra[0]}', which is no input of the model; its inputs are {_names(known)}. "
            "Leave it out, or name it after its input."
        )
    for name, array in found.items():
        _check_dtype(known[name], array)
        _check_shape(known[name], array, layout)


def fixed_batch(session: Session, layout: Layout) -> int | None:
    """The batch size that the model's inputs prescribe, or None where it is free (or feeds are given as they are).

    Raises:
        StageError: inputs prescribe different ones, so that axis 0 cannot count samples.
    """
    if layout == "feeds":
        return None
    sizes = {each.name: each.shape[0] for each in session.get_inputs() if each.shape and isinstance(each.shape[0], int)}
    if len(set(sizes.values())) > 1:
        raise StageError(
            f"Axis 0 of the model's inputs is fixed at different sizes ({sizes}), so it cannot count samples. "
            "Give whole feeds, and set export.eval_layout to feeds."
        )
    return next(iter(sizes.values()), None)


def feed_batch(session: Session, layout: Layout, wanted: int) -> int:
    """The batch size to feed: what the model prescribes, else `wanted`; 1 where each sample is a whole feed."""
    return 1 if layout == "feeds" else (fixed_batch(session, layout) or wanted)


def _names(names: Iterable[str]) -> str:
    listed = [f"'{name}'" for name in names]
    shown = ", ".join(listed[:8])
    return f"{shown} and {len(listed) - 8} more" if len(listed) > 8 else shown or "nothing"


def _check_dtype(wanted: ModelInput, array: EvalInput) -> None:
    dtype = input_dtype(wanted)
    if dtype is None:
        raise StageError(
            f"The model input '{wanted.name}' has the type {wanted.type}, which numpy arrays cannot carry. "
            "Give the model an input of tensors in float32 there, and cast or collect them inside."
        )
    found = "text" if np.dtype(array.dtype).kind in "OUS" else array.dtype
    if found != dtype:
        remedy = "dtype str" if dtype == "text" else f".astype(np.{dtype})"
        raise StageError(
            f"The model input '{wanted.name}' expects {dtype}, the data are {found}. Convert them: {remedy}."
        )


def _check_shape(wanted: ModelInput, array: EvalInput, layout: Layout) -> None:
    expected = list(wanted.shape)
    if not expected:  # a scalar, or a rank that the model leaves open: running it tells
        return
    shape = [expected[0], *array.shape] if layout == "samples" else list(array.shape)
    fits = len(expected) == len(shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(expected, shape, strict=False)
    )
    if not fits:
        other = "feeds" if layout == "samples" else "samples"
        raise StageError(
            f"The model input '{wanted.name}' expects the shape {_shape(expected)}, the data have {_shape(shape)} "
            f"(export.eval_layout is {layout}). Reshape them, or set export.eval_layout to {other}."
        )


def _shape(dims: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if each is None else str(each) for each in dims) + "]"
