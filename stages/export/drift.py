"""Drift: how far the fp32 ONNX model moves the answers of the framework that it was exported from."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from tqdm import tqdm

from stages.common.base import files
from stages.common.base.errors import StageError
from stages.common.compare import Pair, compare
from stages.common.data import evaldata, feeding, outputs
from stages.common.model import model_file, sessions
from stages.export import sklearn_model

BATCH = 256
"""Samples in one call; the answers of an fp32 model do not depend on it."""

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})
"""Types of weights that numpy can search for NaN."""


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
    session: ort.InferenceSession,
    model: ir.Model,
    data: evaldata.EvalData,
    fitted: sklearn_model.Fitted | None,
    origin: str,
) -> Drift:
    """Run the fp32 model over all samples; compare with the framework where there is one.

    Raises:
        StageError: the model does not run, answers differently each time, or with NaN or infinity for a sample.
    """
    pairs = _pairs(session, model, data, fitted, origin)
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
    session: ort.InferenceSession,
    model: ir.Model,
    data: evaldata.EvalData,
    fitted: sklearn_model.Fitted | None,
    origin: str,
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
        if broken := _not_finite(found, each.indices):
            raise StageError(f"{origin}: {broken} in fp32. {_cause(model)}")
        if each.indices[0] == 0:
            _check_repeatable(found, outputs.as_arrays(names, sessions.run(session, each.feed, name=origin)), origin)
        expected = {} if fitted is None else fitted.answers(each.indices, names)
        # The same values may stand in another shape: a column for a vector, several columns one behind the other.
        same = {name: array for name, array in expected.items() if array.size == found[name].size}
        yield Pair(each.indices, same, {name: found[name].reshape(array.shape) for name, array in same.items()})


def _check_repeatable(once: Mapping[str, np.ndarray], again: Mapping[str, np.ndarray], origin: str) -> None:
    """Refuse a model that draws random numbers: noise cannot be told from what quantization does.

    Raises:
        StageError: an output differs between two runs on the same samples by more than rounding.
    """
    for name, array in once.items():
        if array.shape == again[name].shape and array.dtype.kind == "f":
            limit = 1e-4 * float(np.abs(array).max(initial=0))
            same = np.allclose(array, again[name], rtol=0, atol=limit)
        else:
            same = np.array_equal(array, again[name])
        if not same:
            raise StageError(
                f"The output '{name}' of {origin} differs between two runs on the same samples: it draws random "
                "numbers, so no comparison means anything. Export it for inference, or make those numbers an input."
            )


def _not_finite(found: Mapping[str, np.ndarray], indices: np.ndarray) -> str:
    """Which output is NaN or infinite, for which sample; empty where all are finite."""
    for name, array in found.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = np.argwhere(~np.isfinite(array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)))[0][0]
            return f"the output '{name}' is NaN or infinite for evaluation sample {indices[min(row, len(indices) - 1)]}"
    return ""


def _cause(model: ir.Model) -> str:
    """Where an output may have its NaN from, and what to do."""
    for tensor in model_file.tensors(model):
        if tensor.dtype not in FLOATS:
            continue
        values = tensor.numpy()
        finite = np.isfinite(values)
        if finite.all():
            continue
        if not np.isnan(values).any() and not np.any(values[finite]):  # nothing but infinities and zeros
            return f"Its constant '{tensor.name}' masks with infinity: put a large number there, such as -1e9."
        return f"Its weight '{tensor.name}' holds NaN or infinity: the training diverged, or the file is damaged."
    return "Mend the model, or leave that sample out."
