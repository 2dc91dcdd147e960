"""Serving the judged samples as production does, and pairing what the two models answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import onnxruntime as ort

from stages.common.compare import Pair
from stages.common.data.evaldata import Batch
from stages.common.data.outputs import as_arrays, per_sample
from stages.common.model.sessions import run

TURN = 1024
"""Batches that one model gets in a row: alternating call by call, each evicts the other's weights from the cache."""

TURN_BYTES = 8 << 20
"""Feeds and outputs of one model that a turn may hold, as far as the first batch tells."""

Values = list[Any]


@dataclass(frozen=True)
class Model:
    """A loaded model and what it is called in messages."""

    session: ort.InferenceSession
    name: str

    @cached_property
    def outputs(self) -> list[str]:
        return [each.name for each in self.session.get_outputs()]

    def values(self, batch: Batch) -> Values:
        """What the session returns, in the order of `outputs`."""
        return run(self.session, batch.feed, name=self.name)

    def arrays(self, batch: Batch, values: Values) -> dict[str, np.ndarray]:
        """Values of one batch by output name, with its samples along axis 0."""
        return per_sample(as_arrays(self.outputs, values), len(batch.indices))

    def answer(self, batch: Batch) -> dict[str, np.ndarray]:
        """Outputs by name, with the samples of the batch along axis 0."""
        return self.arrays(batch, self.values(batch))


def paired(reference: Model, candidate: Model, batches: Iterable[Batch]) -> Iterator[Pair]:
    """What both models answer to each batch, in turns of many batches.

    Answers of equal shape are joined to one pair for the turn, so that the comparison costs little beside the models.
    """
    stream = iter(batches)
    for first in stream:
        opening = reference.values(first)
        turn = [first, *islice(stream, _turn_length(first, opening) - 1)]
        before = [opening, *map(reference.values, turn[1:])]
        after = [candidate.values(batch) for batch in turn]
        joined_before, joined_after = _joined(reference, turn, before), _joined(candidate, turn, after)
        if joined_before is not None and joined_after is not None:
            yield Pair(np.concatenate([batch.indices for batch in turn]), joined_before, joined_after)
            continue
        for batch, *values in zip(turn, before, after, strict=True):
            yield Pair(batch.indices, reference.arrays(batch, values[0]), candidate.arrays(batch, values[1]))


def _turn_length(batch: Batch, values: Values) -> int:
    size = sum(array.nbytes for array in batch.feed.values())
    size += sum(value.nbytes for value in values if isinstance(value, np.ndarray))
    return min(TURN, TURN_BYTES // max(1, size) + 1)


def _joined(model: Model, turn: Sequence[Batch], values: Sequence[Values]) -> dict[str, np.ndarray] | None:
    """The answers of a turn end to end; None where they are not arrays of one shape beyond the samples."""
    outputs = {}
    for name, arrays in zip(model.outputs, zip(*values, strict=True), strict=True):
        if not isinstance(arrays[0], np.ndarray) or len({array.shape[1:] for array in arrays}) > 1:
            return None
        if any(array.ndim == 0 or len(array) != len(batch.indices) for array, batch in zip(arrays, turn, strict=True)):
            return None
        outputs[name] = np.concatenate(arrays)
    return outputs
