"""How far the answers to the same samples move in another batch, or padded to another length.

Dynamic quantization takes one scale for a whole tensor, over the batch and over padded positions that the attention
mask tells the model to ignore. fp32 depends on neither, unless the model itself mixes the samples of a batch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from stages.common.base.errors import ParamsError, StageError
from stages.common.data.evaldata import Batch
from stages.common.judging.serve import Model, calls
from stages.parity.setting import Setting

SAMPLES = 256
LARGE = 64
LARGE_BYTES = 8 << 20
"""Most bytes of inputs in the large batch: intermediate tensors take many times as much."""

OUTPUT_BYTES = 16 << 20
"""Most bytes of outputs that are kept to compare; if they are larger, fewer samples are tried."""

PADDED_CALLS = 32
MASK_TYPES = ("tensor(int64)", "tensor(int32)", "tensor(bool)")
AXIS = 1
"""The axis of positions, in a mask [batch, positions] and in the inputs and outputs with the same positions."""

Answer = dict[str, np.ndarray]


@dataclass(frozen=True)
class BatchEffect:
    """How far the float outputs of a sample move in a batch, compared with the same sample served alone.

    Attributes:
        samples: how many samples were served, drawn with a fixed seed.
        reason: why nothing could be measured; empty if it was.
        outputs: by name, the largest absolute movement of INT8 in batches of `serving.batch_size` (`serving`) and of
            `large_batch` (`large`); in the latter also its difference from fp32 (`large_error`) and the movement of
            fp32 (`fp32`), which is more than rounding if the model mixes the samples of a batch. None for an output
            whose shape depends on the batch.
    """

    large_batch: int | None = None
    samples: int = 0
    reason: str = ""
    outputs: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def largest(self, *keys: str) -> float | None:
        """The largest movement of any output under these keys."""
        moved = [output[key] for output in self.outputs.values() for key in keys]
        return max((value for value in moved if value is not None), default=None)


@dataclass(frozen=True)
class PaddingEffect:
    """Largest absolute movement of any float output when samples are padded.

    `mask` is the name of the attention mask, empty if the model has none; `length` and `padded` count positions;
    `reason` says why nothing could be measured, and is empty if it was.
    """

    mask: str = ""
    length: int | None = None
    padded: int | None = None
    fp32_max_abs: float | None = None
    int8_max_abs: float | None = None
    reason: str = "no input is an attention mask"


def measure_batch_effect(setting: Setting) -> BatchEffect:
    """Serve some of the judged samples alone, in the serving batch, and in a large one."""
    if not setting.free:
        return BatchEffect(reason="the model is served in one batch size only")
    if len(setting.indices) < 2:
        return BatchEffect(reason="one sample is not a batch")
    drawn = np.random.default_rng(0).permutation(setting.indices)[:SAMPLES]
    try:
        alone = _answers(setting, setting.int8, drawn, 1)
        drawn = drawn[: len(alone)]
        size = _large(setting, len(drawn))
        large = _answers(setting, setting.int8, drawn, size)
        serving = alone if setting.batch == 1 else _answers(setting, setting.int8, drawn, setting.batch)
        fp32_alone, fp32_large = (_answers(setting, setting.fp32, drawn, batch) for batch in (1, size))
    except StageError as problem:
        return BatchEffect(reason=f"another batch size does not run: {problem}")
    moved = {
        "serving": _movement(alone, serving),
        "large": _movement(alone, large),
        "large_error": _movement(fp32_large, large),
        "fp32": _movement(fp32_alone, fp32_large),
    }
    names = dict.fromkeys([*moved["large"], *moved["serving"]])
    return BatchEffect(
        size, len(drawn), outputs={name: {key: by_name.get(name) for key, by_name in moved.items()} for name in names}
    )


def measure_padding(setting: Setting, wanted: str | None) -> PaddingEffect:
    """Serve some of the judged samples as they are, and padded to twice their length or by a quarter.

    Raises:
        ParamsError: `wanted` (`parity.padding`, the name of the mask; None to find it) is not an input of the model.
    """
    mask = mask_input(setting, wanted)
    if not mask:
        return PaddingEffect()
    chosen = list(islice(calls(setting.data, setting.indices, setting.batch), PADDED_CALLS))
    length = chosen[0].feed[mask].shape[AXIS]
    reason = ""
    for padded in (2 * length, length + max(1, length // 4)):
        try:
            served = [(call, _padded(setting.fp32, call, mask, padded)) for call in chosen]
            fp32, int8 = (
                max(_padding_movement(model, call, longer, mask) for call, longer in served)
                for model in (setting.fp32, setting.int8)
            )
            return PaddingEffect(mask, length, padded, fp32, int8, reason="")
        except StageError as error:
            reason = f"the model does not run on {padded} positions: {error}"
    return PaddingEffect(mask, length, reason=reason)


def mask_input(setting: Setting, wanted: str | None) -> str:
    """The name of the attention mask: an input of integers or booleans, of rank 2, with "mask" in its name; or empty.

    Raises:
        ParamsError: `wanted` is not an input of the model.
    """
    inputs = {entry.name: entry for entry in setting.fp32.session.get_inputs()}
    if wanted is not None and wanted not in inputs:
        raise ParamsError(
            f"params.yaml: parity.padding is {wanted}, which is not an input of the model; it has {', '.join(inputs)}."
        )
    for name, entry in inputs.items():
        named = name == wanted or (wanted is None and "mask" in str(name).lower())
        if named and entry.type in MASK_TYPES and len(entry.shape) == 2 and not isinstance(entry.shape[AXIS], int):
            return str(name)
    return ""


def _large(setting: Setting, samples: int) -> int:
    return max(setting.batch, min(samples, max(2, min(LARGE, LARGE_BYTES // setting.data.sample_bytes))))


def _answers(setting: Setting, model: Model, indices: np.ndarray, batch: int) -> list[Answer]:
    """The float outputs of each sample in this batch size; samples served alone end at `OUTPUT_BYTES`."""
    answers: list[Answer] = []
    size = 0
    for call in calls(setting.data, indices, batch):
        outputs = _floats(model.answer(call))
        answers += [{name: array[row] for name, array in outputs.items()} for row in range(len(call.indices))]
        size += sum(array.nbytes for array in outputs.values())
        if batch == 1 and size > OUTPUT_BYTES:
            break
    return answers


def _floats(outputs: Answer) -> Answer:
    return {name: array for name, array in outputs.items() if array.dtype.kind == "f"}


def _movement(before: Iterable[Answer], after: Iterable[Answer]) -> dict[str, float]:
    """The largest movement of each output; an output whose shape depends on the batch is ignored."""
    largest: dict[str, float] = {}
    for one, other in zip(before, after, strict=True):
        for name, array in one.items():
            if array.shape == other[name].shape and array.size:
                largest[name] = max(largest.get(name, 0.0), _largest(other[name], array))
    return largest


def _largest(one: np.ndarray, other: np.ndarray, seen: np.ndarray | None = None) -> float:
    with np.errstate(invalid="ignore"):
        moved = np.abs(one.astype(np.float64) - other)
    moved = moved if seen is None else moved[seen]
    return float(moved.max(where=np.isfinite(moved), initial=0.0))


def _padded(model: Model, call: Batch, mask: str, length: int) -> Batch:
    """The call with zeros appended to the positions of the mask, and of every input with the same positions."""
    shapes = {entry.name: entry.shape for entry in model.session.get_inputs()}
    before = call.feed[mask].shape[AXIS]
    feed = {}
    for name, array in call.feed.items():
        shape = shapes.get(name, [])
        along = len(shape) > AXIS and shape[AXIS] == shapes[mask][AXIS] and array.shape[AXIS] == before
        widths = [(0, length - before if along and axis == AXIS else 0) for axis in range(array.ndim)]
        feed[name] = np.pad(array, widths)
    return replace(call, feed=feed)


def _padding_movement(model: Model, call: Batch, longer: Batch, mask: str) -> float:
    """Compare the positions that the mask lets the model see; an output without positions is compared whole."""
    largest = 0.0
    after = model.answer(longer)
    for name, before in _floats(model.answer(call)).items():
        if before.ndim != after[name].ndim:
            continue
        kept = after[name][tuple(slice(0, size) for size in before.shape)]
        if kept.shape != before.shape:
            continue
        seen = call.feed[mask].astype(bool)[: len(before)]
        masked = before.shape != after[name].shape and before.shape[: AXIS + 1] == seen.shape
        largest = max(largest, _largest(kept, before, seen if masked else None))
    return largest
