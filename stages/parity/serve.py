"""Serving the judged samples as production does, and pairing what the two models answer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnxruntime as ort

from stages.common.compare import Pair
from stages.common.errors import StageError
from stages.common.evaldata import Batch, EvalData
from stages.common.outputs import as_arrays, per_sample
from stages.common.sessions import run

TURN = 256
"""Batches that one model gets in a row: alternating call by call, each evicts the other's weights from the cache."""

TURN_BYTES = 8 << 20


@dataclass(frozen=True)
class Model:
    """A loaded model and what it is called in messages."""

    session: ort.InferenceSession
    name: str

    def answer(self, batch: Batch) -> dict[str, np.ndarray]:
        """Outputs by name, with the samples of the batch along axis 0."""
        names = [each.name for each in self.session.get_outputs()]
        values = run(self.session, batch.feed, name=self.name)
        return per_sample(as_arrays(names, values), len(batch.indices))


def fixed_batch(session: ort.InferenceSession, data: EvalData) -> int | None:
    """The batch size that the model's inputs are fixed to; None if it is free, or samples are whole feeds.

    Raises:
        StageError: two inputs are fixed to different sizes, so that axis 0 cannot count samples.
    """
    if data.layout == "feeds":
        return None
    sizes = {each.name: each.shape[0] for each in session.get_inputs() if each.shape and isinstance(each.shape[0], int)}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise StageError(
            f"The model's inputs have different first dimensions ({shown}), so axis 0 does not count samples. "
            "Set export.eval_layout to feeds."
        )
    return next(iter(sizes.values()), None)


def served(data: EvalData, indices: np.ndarray, size: int, *, whole: bool) -> Iterator[Batch]:
    """Batches of `size`; with `whole` (a fixed batch) the tail that does not fill one is left out."""
    kept = indices[: len(indices) // size * size] if whole and data.layout == "samples" else indices
    return data.batches(kept, size)


def paired(reference: Model, candidate: Model, batches: Iterable[Batch]) -> Iterator[Pair]:
    """What both models answer to each batch, in turns of many batches."""
    stream = iter(batches)
    while turn := _turn(stream):
        answers = [reference.answer(batch) for batch in turn]
        for batch, before in zip(turn, answers, strict=True):
            yield Pair(batch.indices, before, candidate.answer(batch))


def _turn(stream: Iterator[Batch]) -> list[Batch]:
    first = next(stream, None)
    if first is None:
        return []
    size = max(1, sum(array.nbytes for array in first.feed.values()))
    return [first, *islice(stream, min(TURN, TURN_BYTES // size + 1) - 1)]
