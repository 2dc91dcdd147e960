"""How far the same samples move when they are padded longer: a batch effect of models that read sequences.

An attention mask tells a model which positions to ignore. In fp32 it does; in INT8 one scale for a whole tensor takes
in what stands at the padded positions, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from stages.common.base.errors import ParamsError, StageError
from stages.common.judging.serve import Call, Model, calls
from stages.parity.setting import Setting

CALLS = 32
TYPES = ("tensor(int64)", "tensor(int32)", "tensor(bool)")
AXIS = 1
"""The axis of positions, in a mask [batch, positions] and in the inputs and outputs that go with it."""


@dataclass(frozen=True)
class PaddingEffect:
    """Largest absolute movement of any float output between samples as they are and padded longer.

    Attributes:
        mask: the input that is the attention mask; empty where there is none.
        length: positions as they are.
        padded: positions afterwards.
        fp32: movement of fp32, None where it could not be measured.
        int8: movement of INT8.
        reason: why there are no figures.
    """

    mask: str = ""
    length: int | None = None
    padded: int | None = None
    fp32: float | None = None
    int8: float | None = None
    reason: str = "no input is an attention mask"


def measure_padding(setting: Setting, wanted: str | None) -> PaddingEffect:
    """Serve some of the judged samples as they are and padded to twice their length, or by a quarter.

    Args:
        setting: what is judged.
        wanted: `parity.padding`, the name of the mask; None finds it.

    Raises:
        ParamsError: `wanted` is not an input of the model.
    """
    mask = mask_input(setting, wanted)
    if not mask:
        return PaddingEffect()
    chosen = list(islice(calls(setting.data, setting.indices, setting.batch), CALLS))
    length = chosen[0].feed[mask].shape[AXIS]
    reason = ""
    for padded in (2 * length, length + max(1, length // 4)):
        try:
            served = [(call, _padded(setting.fp32, call, mask, padded)) for call in chosen]
            fp32, int8 = (
                max(_movement(model, call, longer, mask) for call, longer in served)
                for model in (setting.fp32, setting.int8)
            )
            return PaddingEffect(mask, length, padded, fp32, int8, reason="")
        except StageError as error:
            reason = f"the model does not run on {padded} positions: {error}"
    return PaddingEffect(mask, length, reason=reason)


def mask_input(setting: Setting, wanted: str | None) -> str:
    """The attention mask among the inputs: integers or booleans of rank 2 with "mask" in their name; else empty.

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
        if named and entry.type in TYPES and len(entry.shape) == 2 and not isinstance(entry.shape[AXIS], int):
            return str(name)
    return ""


def _padded(model: Model, call: Call, mask: str, length: int) -> Call:
    """The call with zeros behind the positions of the mask and of every input that has the same positions."""
    shapes = {entry.name: entry.shape for entry in model.session.get_inputs()}
    before = call.feed[mask].shape[AXIS]
    feed = {}
    for name, array in call.feed.items():
        shape = shapes.get(name, [])
        along = len(shape) > AXIS and shape[AXIS] == shapes[mask][AXIS] and array.shape[AXIS] == before
        widths = [(0, length - before if along and axis == AXIS else 0) for axis in range(array.ndim)]
        feed[name] = np.pad(array, widths)
    return Call(call.indices, feed, call.size)


def _movement(model: Model, call: Call, longer: Call, mask: str) -> float:
    before, after = model.answer(call), model.answer(longer)
    seen = call.feed[mask].astype(bool)
    return max((_largest(before[name], after[name], seen) for name in _floats(before)), default=0.0)


def _floats(outputs: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name, array in outputs.items() if array.dtype.kind == "f"]


def _largest(before: np.ndarray, after: np.ndarray, seen: np.ndarray) -> float:
    """Over the positions that the mask lets the model see; an output with other axes than positions as it is."""
    if before.ndim != after.ndim:
        return 0.0
    kept = after[tuple(slice(0, size) for size in before.shape)]
    if kept.shape != before.shape:
        return 0.0
    moved = np.abs(kept.astype(np.float64) - before)
    if before.shape != after.shape and moved.shape[: AXIS + 1] == seen[: len(moved)].shape:
        moved = moved[seen[: len(moved)]]
    return float(moved.max(where=np.isfinite(moved), initial=0.0))
