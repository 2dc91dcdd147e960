"""How far the same samples move in INT8 in another batch: dynamic quantization takes one scale per batch.

fp32 does not depend on the batch, so its answers to samples served alone are the reference for every batch size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.common.base.errors import StageError
from stages.common.judging.serve import Model, calls
from stages.parity.setting import Setting

SAMPLES = 256
LARGE = 64
LARGE_BYTES = 8 << 20
"""Inputs of the large batch: intermediate tensors take many times their room."""

OUTPUT_BYTES = 16 << 20
"""Outputs of one serving that are kept to compare; fewer samples are tried where they are larger."""

Movement = Mapping[str, float]
Answers = list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class BatchEffect:
    """Largest absolute movement of each float output of INT8 against the same sample served alone, by output name.

    Attributes:
        samples: how many were tried, drawn by a fixed seed.
        serving: movement in batches of `serving.batch_size`.
        large: movement in batches of `large_batch`.
        large_batch: its size.
        large_error: largest difference of INT8 from fp32 in those batches.
        reason: why there are no figures, else empty.
    """

    samples: int = 0
    serving: Movement = field(default_factory=dict)
    large: Movement = field(default_factory=dict)
    large_batch: int | None = None
    large_error: Movement = field(default_factory=dict)
    reason: str = ""


def measure_batch_effect(setting: Setting) -> BatchEffect:
    """Serve some of the judged samples alone, in the serving batch, and in a large one."""
    if not setting.free:
        return BatchEffect(reason="the model is served in one batch size only")
    if len(setting.indices) < 2:
        return BatchEffect(reason="one sample does not make a batch")
    drawn = np.random.default_rng(0).permutation(setting.indices)[:SAMPLES]
    try:
        alone = _alone(setting, setting.int8, drawn)
        drawn = drawn[: len(alone)]
        size = _large(setting, len(drawn))
        large = _in_batches(setting, setting.int8, drawn, size)
        serving = alone if setting.batch == 1 else _in_batches(setting, setting.int8, drawn, setting.batch)
        error = _movement(_alone(setting, setting.fp32, drawn), large)
    except StageError as problem:
        return BatchEffect(reason=f"another batch size does not run: {problem}")
    return BatchEffect(len(drawn), _movement(alone, serving), _movement(alone, large), size, error)


def _large(setting: Setting, samples: int) -> int:
    size = sum(array.nbytes for array in setting.data.read(setting.indices[:1]).values())
    return max(setting.batch, min(samples, max(2, min(LARGE, LARGE_BYTES // max(1, size)))))


def _alone(setting: Setting, model: Model, indices: np.ndarray) -> Answers:
    answers: Answers = []
    size = 0
    for call in calls(setting.data, indices, 1):
        answers.append({name: array[0] for name, array in _floats(model.answer(call)).items()})
        size += sum(array.nbytes for array in answers[-1].values())
        if size > OUTPUT_BYTES:
            break
    return answers


def _in_batches(setting: Setting, model: Model, indices: np.ndarray, size: int) -> Answers:
    answers: Answers = []
    for call in calls(setting.data, indices, size):
        outputs = _floats(model.answer(call))
        answers += [{name: array[row] for name, array in outputs.items()} for row in range(len(call.indices))]
    return answers


def _floats(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in outputs.items() if array.dtype.kind == "f"}


def _movement(before: Sequence[Mapping[str, np.ndarray]], after: Sequence[Mapping[str, np.ndarray]]) -> Movement:
    """Over the samples; an output whose shape depends on the batch cannot be compared and is ignored."""
    largest: dict[str, float] = {}
    for one, other in zip(before, after, strict=True):
        for name, array in one.items():
            if array.shape == other[name].shape and array.size:
                with np.errstate(invalid="ignore"):
                    moved = np.abs(array.astype(np.float64) - other[name])
                largest[name] = max(largest.get(name, 0.0), float(moved.max(where=np.isfinite(moved), initial=0.0)))
    return largest
