"""How far the same samples move in INT8 in another batch: dynamic quantization takes one scale for each.

fp32 does not depend on the batch, so its answers to samples served alone are the reference for every batch size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stages.common.evaldata import EvalData
from stages.parity.serve import Model

SAMPLES = 512
LARGE = 128


@dataclass(frozen=True)
class BatchEffect:
    """Largest absolute movement of any float output of INT8 against the same sample served alone.

    Attributes:
        samples: tried, drawn by a fixed seed.
        serving: movement in batches of `serving.batch_size`.
        large: movement in batches of `large_batch`, shuffled.
        large_batch: its size.
        large_error: largest difference from fp32 in those batches.
        reason: why there are no figures, else empty.
    """

    samples: int = 0
    serving: float | None = None
    large: float | None = None
    large_batch: int | None = None
    large_error: float | None = None
    reason: str = ""

    @property
    def largest(self) -> float | None:
        return max((each for each in (self.serving, self.large) if each is not None), default=None)


def batch_effect(
    fp32: Model, int8: Model, data: EvalData, indices: np.ndarray, batch: int, *, free: bool
) -> BatchEffect:
    """Serve some of the judged samples alone, in the serving batch, and in large batches.

    Args:
        fp32: the reference.
        int8: the model that may depend on the batch.
        data: the evaldata.
        indices: of the judged samples.
        batch: the serving batch.
        free: whether the model takes any batch size.
    """
    if not free:
        return BatchEffect(reason="the model is served in one batch size only")
    if len(indices) < 2:
        return BatchEffect(reason="one sample has no batch")
    drawn = np.random.default_rng(0).permutation(indices)[:SAMPLES]
    size = max(batch, min(LARGE, len(drawn)))
    try:
        alone = list(_floats(int8, data, drawn, 1))
        reference = list(_floats(fp32, data, drawn, 1))
        large = list(_floats(int8, data, drawn, size))
        serving = alone if batch == 1 else list(_floats(int8, data, np.sort(drawn), batch))
    except ValueError:
        return BatchEffect(reason="the outputs do not count samples along axis 0")
    del serving
    return BatchEffect(
        len(drawn),
        0.0 if batch == 1 else _moved(alone, large),
        _moved(alone, large),
        size,
        _moved(reference, large),
    )


def _floats(model: Model, data: EvalData, indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for batch in data.batches(indices, size):
        answer = model.answer(batch)
        rows = [array.reshape(len(batch.indices), -1) for array in answer.values() if array.dtype.kind == "f"]
        yield from np.concatenate(rows, axis=1).astype(np.float64)


def _moved(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    return max((float(np.abs(a - b).max()) for a, b in zip(before, after, strict=True) if a.size), default=0.0)
