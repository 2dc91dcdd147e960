"""Checks that the evaluation data is complete and fits the exported model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from stages.common.base.errors import StageError
from stages.common.data import evaldata, feeding
from stages.export.drift import Drift

WRONG_NRMSE = 0.1
"""A conversion is wrong if its RMS difference exceeds this share of the standard deviation of the source's answers."""


def check_rows(inputs: Any) -> None:
    """Evaluation inputs of any kind must have at least one row: no converter takes empty inputs.

    Raises:
        StageError: an input has no rows.
    """
    for array in inputs.values() if isinstance(inputs, Mapping) else [inputs]:
        if getattr(array, "shape", None) and array.shape[0] == 0:
            raise StageError("The evaluation data has no rows. Give at least one, preferably a thousand.")


def check_counts(inputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> None:
    """Every array must have an axis of samples, and the same number of samples.

    Raises:
        StageError: an array is a single number, or the numbers of samples differ.
    """
    arrays = dict(inputs) | ({} if labels is None else {"labels": labels})
    for name, array in arrays.items():
        if array.ndim == 0:
            raise StageError(
                f"The evaluation array '{name}' is a single number, without an axis of samples. "
                "Stack one value per feed along axis 0, and set export.eval_layout to feeds."
            )
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise StageError(f"The evaluation arrays differ in their number of samples: {listed}. Give one row per sample.")


def check_samples(session: ort.InferenceSession, data: evaldata.EvalData) -> None:
    """A model with a fixed batch needs a full batch to search on, and another to judge.

    Raises:
        StageError: there are too few samples.
    """
    batch = feeding.fixed_batch(session, data.layout) or 1
    search = len(data.indices("search"))
    if search >= batch or batch == 1:
        return
    needed = round(batch / evaldata.SEARCH_SHARE)
    raise StageError(
        f"The model's inputs fix axis 0 at {batch}, but the evaluation data has {data.samples} rows, of which "
        f"{search} go to the search split. Give at least {needed}; or, if each row is a whole feed (axis 0 of the "
        "model does not count samples), set export.eval_layout to feeds."
    )


def check_outputs(session: ort.InferenceSession, origin: str) -> None:
    """Every output must have a type that numpy can hold.

    Raises:
        StageError: numpy has no type for an output.
    """
    for output in session.get_outputs():
        if "tensor(" in output.type and feeding.input_dtype(output) is None and not output.type.startswith("seq"):
            raise StageError(
                f"The output '{output.name}' of {origin} has the type {output.type}, which numpy arrays cannot hold. "
                "Cast it to float32 in the model."
            )


def check_conversion(drift: Drift, origin: str) -> None:
    """The export must give the same answers as its source, up to rounding.

    Raises:
        StageError: an output differs by more.
    """
    for name, moments in drift.outputs.items():
        if moments.nrmse is not None and moments.nrmse > WRONG_NRMSE:
            raise StageError(
                f"The export of {origin} gives different answers from its source: '{name}' moves by "
                f"{moments.nrmse:.2g} times the spread of its values, so the converter does not support all of this "
                "model. Export it yourself, and set export.source to the .onnx file."
            )
