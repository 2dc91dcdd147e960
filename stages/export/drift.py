"""Drift: how far the fp32 ONNX model moves the answers of the framework that it was exported from."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from tqdm import tqdm

from stages.common import evaldata, feeding, files, outputs, sessions
from stages.common.compare import Pair, compare
from stages.common.errors import StageError
from stages.export import sklearn_model

BATCH = 256
"""Samples in one call; the answers of an fp32 model do not depend on it."""


@dataclass(frozen=True)
class Drift:
    """The figures over all samples; None where there is no framework to compare with, or nothing to decide."""

    max_abs: float | None
    flips: int | None
    why_null: Mapping[str, str]

    def metrics(self) -> dict[str, Any]:
        """The group `drift` of `metrics/export.json`."""
        return {"max_abs": files.rounded(self.max_abs), "flips": self.flips}

    def notes(self) -> dict[str, Any]:
        """The reasons of what is null, as a group of their own; nothing where all is known."""
        return {"export_notes": dict(self.why_null)} if self.why_null else {}

    def sentence(self) -> str:
        """The drift in words."""
        flips = "" if self.flips is None else f"{self.flips or 'no'} decision{'s' * (self.flips != 1)} flipped"
        if self.max_abs is None:
            why = self.why_null["max_abs"]
            return f"Drift is not measured: {why}." if self.flips is None else f"By the export {flips}; {why}."
        also = f", and {flips}" if flips else ""
        return f"The export moves the answers of its source by {self.max_abs:.2g} at most{also}."


def measure(
    session: ort.InferenceSession, data: evaldata.EvalData, fitted: sklearn_model.Fitted | None, origin: str
) -> Drift:
    """Run the fp32 model over all samples; compare with the framework where there is one.

    Raises:
        StageError: the model does not run, or an output is NaN or infinite for a sample.
    """
    pairs = _pairs(session, data, fitted, origin)
    if fitted is None:
        for _ in pairs:
            pass
        why = "the source is ONNX already"
        return Drift(None, None, {"max_abs": why, "flips": why})
    found = compare(pairs)
    why_null = {}
    if found.max_abs is None:
        why_null["max_abs"] = "the source gives no numbers that the export gives too"
    if not found.decider.decides:
        why_null["flips"] = "the model decides nothing"
    return Drift(found.max_abs, found.flips.flips if found.decider.decides else None, why_null)


def _pairs(
    session: ort.InferenceSession, data: evaldata.EvalData, fitted: sklearn_model.Fitted | None, origin: str
) -> Iterator[Pair]:
    """The answers of the framework beside those of the fp32 model, for the outputs that the framework has, too."""
    names = [each.name for each in session.get_outputs()]
    batch = feeding.feed_batch(session, data.layout, BATCH)
    whole = feeding.fixed_batch(session, data.layout) is not None
    steps = math.ceil(data.samples / batch)
    for each in tqdm(data.batches(np.arange(data.samples), batch), "fp32", steps, leave=False, disable=None):
        if whole and len(each.indices) < batch:
            return  # a model with a fixed batch cannot be fed what remains
        found = outputs.as_arrays(names, sessions.run(session, each.feed, name=origin))
        _check_finite(found, each.indices, origin)
        expected = {} if fitted is None else fitted.answers(each.indices, names)
        # The same values may stand in another shape: a column for a vector, several columns one behind the other.
        same = {name: array for name, array in expected.items() if array.size == found[name].size}
        yield Pair(each.indices, same, {name: found[name].reshape(array.shape) for name, array in same.items()})


def _check_finite(found: Mapping[str, np.ndarray], indices: np.ndarray, origin: str) -> None:
    for name, array in found.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = np.argwhere(~np.isfinite(array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)))[0][0]
            sample = indices[min(row, len(indices) - 1)]
            raise StageError(
                f"The output '{name}' of {origin} is NaN or infinite in fp32 for evaluation sample {sample}. "
                "Mend the model, or leave that sample out."
            )
