"""Run the fp32 model on every evaluation sample, and refuse a model whose answers cannot be compared."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from tqdm import tqdm

from stages.common.base.errors import StageError
from stages.common.data import evaldata, feeding
from stages.common.model import model_file, sessions

BATCH = 256
"""Most samples in one call, if the model does not fix its batch."""

BATCH_BYTES = 8 << 20
"""Most bytes of inputs in one call, if a sample is smaller: intermediate tensors take many times as much."""

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})
"""Types of weights that numpy can search for NaN."""


def answers(
    session: ort.InferenceSession, model: ir.Model, data: evaldata.EvalData, origin: str
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Run the model on all samples. Errors call it `origin`; `model` is searched for the cause of NaN and infinity.

    Yields:
        The indices of the samples of one call, int64 [n], and the outputs by name. If the model fixes the batch, the
        last call is filled by repeating samples, and its outputs are cut to the n samples.

    Raises:
        StageError: the model does not run, gives different answers to the same samples, or gives NaN or infinity.
    """
    batch = feeding.feed_batch(session, data.layout, max(1, min(BATCH, BATCH_BYTES // data.sample_bytes)))
    fixed = feeding.fixed_batch(session, data.layout) is not None
    everything = np.arange(data.samples)
    steps = math.ceil(data.samples / batch)
    for call in tqdm(data.batches(everything, batch), "fp32", steps, leave=False, disable=None):
        feed = data.read(evaldata.fill(call.indices, batch)) if fixed and len(call.indices) < batch else call.feed
        values = sessions.answers(session, feed, name=origin)
        if problem := _not_finite(values, call.indices):
            raise StageError(f"{origin}: {problem} in fp32. {_cause(model, feed)}")
        if call.indices[0] == 0:
            _check_repeatable(values, sessions.answers(session, feed, name=origin), origin)
        if feed is not call.feed:
            values = {
                name: array[: len(call.indices)] if array.shape[:1] == (batch,) else array
                for name, array in values.items()
            }
        yield call.indices, {name: _rows(array, data.layout) for name, array in values.items()}


def _rows(array: np.ndarray, layout: evaldata.Layout) -> np.ndarray:
    """In the layout `feeds` a call is one sample, and its outputs have no axis for samples."""
    return array[np.newaxis] if layout == "feeds" else array


def _check_repeatable(once: Mapping[str, np.ndarray], again: Mapping[str, np.ndarray], origin: str) -> None:
    """Refuse a model that draws random numbers: their noise would pass for an effect of quantization."""
    for name, array in once.items():
        if array.shape == again[name].shape and array.dtype.kind == "f":
            limit = 1e-4 * float(np.abs(array).max(initial=0))
            same = np.allclose(array, again[name], rtol=0, atol=limit)
        else:
            same = np.array_equal(array, again[name])
        if not same:
            raise StageError(
                f"The output '{name}' of {origin} differs between two runs on the same samples: the model draws random "
                "numbers, so it cannot be compared. Export it for inference, or make those numbers an input."
            )


def _not_finite(values: Mapping[str, np.ndarray], indices: np.ndarray) -> str:
    """A clause that names the first output with NaN or infinity, and the sample; empty if every value is finite."""
    for name, array in values.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = np.argwhere(~np.isfinite(array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)))[0][0]
            return f"the output '{name}' is NaN or infinite for evaluation sample {indices[min(row, len(indices) - 1)]}"
    return ""


def _cause(model: ir.Model, feed: Mapping[str, np.ndarray]) -> str:
    """The likely cause of a NaN, and what to do."""
    for name, array in feed.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            return f"The evaluation data has {kind} in '{name}': impute it as in training, or remove that sample."
    for tensor in model_file.tensors(model):
        if tensor.dtype not in FLOATS:
            continue
        values = tensor.numpy()
        finite = np.isfinite(values)
        if finite.all():
            continue
        if not np.isnan(values).any() and not np.any(values[finite]):  # nothing but infinities and zeros
            return f"Its constant '{tensor.name}' masks with infinity: use a large finite number such as -1e9."
        return f"Its weight '{tensor.name}' holds NaN or infinity: training diverged, or the file is damaged."
    return "Fix the model, or remove that sample."
