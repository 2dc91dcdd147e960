"""Serving samples as production does, in full batches, and pairing the answers of both models."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import onnxruntime as ort

from stages.common.compare.comparison import OutputPair
from stages.common.data.evaldata import Batch, EvalData, fill
from stages.common.decisions import DECIDING_BYTES, are_log_probabilities, probability_axes
from stages.common.model.sessions import as_arrays, per_sample, run

TURN = 1024
"""Batches that a model gets in a row: alternating call by call, each evicts the other's weights from the cache."""

TURN_BYTES = 8 << 20
"""Feeds and outputs that a turn may hold, estimated from its first batch."""

PROBED = 16
"""Calls whose outputs must be logarithms of probabilities for an output to count as such."""

Values = list[Any]


@dataclass(frozen=True)
class Model:
    """A loaded model, and its name in messages; answers hold probabilities in place of outputs in `logarithms`."""

    session: ort.InferenceSession
    name: str
    logarithms: frozenset[str] = frozenset()

    @cached_property
    def outputs(self) -> list[str]:
        return [output.name for output in self.session.get_outputs()]

    def values(self, call: Batch) -> Values:
        """What the session returns, in the order of `outputs`."""
        return run(self.session, call.feed, name=self.name)

    def arrays(self, call: Batch, values: Values) -> dict[str, np.ndarray]:
        """The values of one call by output name, cut to the samples that count, along axis 0."""
        arrays = per_sample(as_arrays(self.outputs, values), call.size)
        return {name: self.meant(name, array[: len(call.indices)]) for name, array in arrays.items()}

    def meant(self, name: str, array: np.ndarray) -> np.ndarray:
        """The array to compare: probabilities in place of their logarithms."""
        return np.exp(array) if name in self.logarithms else array

    def answer(self, call: Batch) -> dict[str, np.ndarray]:
        """Run the model; see `arrays`."""
        return self.arrays(call, self.values(call))


def calls(data: EvalData, indices: np.ndarray, batch: int) -> Iterator[Batch]:
    """The calls that serve these samples in order, in full batches: the last one repeats its samples to fill up."""
    if data.layout == "feeds":
        batch = 1
    whole = len(indices) // batch * batch
    rest = indices[whole:]
    served = np.concatenate([indices[:whole], fill(rest, batch)]) if len(rest) else indices
    left = len(indices)
    for chunk in data.batches(served, batch):
        yield replace(chunk, indices=chunk.indices[: min(batch, left)])
        left -= batch


def logarithms(model: Model, stream: Iterable[Batch]) -> frozenset[str]:
    """The outputs that are logarithms of probabilities along an axis of `class_axes`, in the first `PROBED` calls."""
    found: set[str] | None = None
    for call in islice(stream, PROBED):
        floats = {name: array for name, array in model.answer(call).items() if array.dtype.kind == "f" and array.size}
        here = {
            name for name, array in floats.items() if probability_axes(_first_samples(array), are_log_probabilities)
        }
        found = here if found is None else found & here
        if not found:
            break
    return frozenset(found or ())


def _first_samples(array: np.ndarray) -> np.ndarray:
    return array[: max(1, DECIDING_BYTES // array[:1].nbytes)]


def paired(reference: Model, candidate: Model, stream: Iterable[Batch]) -> Iterator[OutputPair]:
    """The answers of both models, one pair per turn of many calls if their shapes allow, else one per call.

    Comparing a thousand samples at a time costs little beside running the models. Models that share a session run once.
    """
    stream = iter(stream)
    for first in stream:
        opening = reference.values(first)
        turn = [first, *islice(stream, _turn_length(first, opening) - 1)]
        before = [opening, *map(reference.values, turn[1:])]
        shared = candidate.session is reference.session
        after = before if shared else [candidate.values(call) for call in turn]
        joined_before, joined_after = _joined(reference, turn, before), _joined(candidate, turn, after)
        if joined_before is not None and joined_after is not None:
            yield OutputPair(np.concatenate([call.indices for call in turn]), joined_before, joined_after)
            continue
        for call, *values in zip(turn, before, after, strict=True):
            yield OutputPair(call.indices, reference.arrays(call, values[0]), candidate.arrays(call, values[1]))


def _turn_length(call: Batch, values: Values) -> int:
    size = sum(array.nbytes for array in call.feed.values())
    size += sum(value.nbytes for value in values if isinstance(value, np.ndarray))
    return min(TURN, TURN_BYTES // max(1, size) + 1)


def _joined(model: Model, turn: Sequence[Batch], values: Sequence[Values]) -> dict[str, np.ndarray] | None:
    """The answers of a turn, concatenated; None if an output is not an array, or its shape varies beyond axis 0."""
    outputs = {}
    for name, arrays in zip(model.outputs, zip(*values, strict=True), strict=True):
        if not isinstance(arrays[0], np.ndarray) or len({array.shape[1:] for array in arrays}) > 1:
            return None
        if any(array.ndim == 0 or len(array) != call.size for array, call in zip(arrays, turn, strict=True)):
            return None
        parts = [array[: len(call.indices)] for array, call in zip(arrays, turn, strict=True)]
        outputs[name] = model.meant(name, np.concatenate(parts) if len(parts) > 1 else parts[0])
    return outputs
