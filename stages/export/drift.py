"""Drift: how far the answers of the fp32 ONNX model are from those of its framework."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.common import decisions
from stages.common.moments import Moments

Outputs = dict[str, np.ndarray]

SourceAnswers = Callable[[np.ndarray, Sequence[str]], Outputs]
"""The answers of the source framework: takes sample indices (int64 [n]) and the names of the exported model's outputs,
and returns arrays by output name, without the outputs that the framework does not give."""


@dataclass(frozen=True)
class Drift:
    """The drift over the judge samples.

    Attributes:
        outputs: differences by output name, for each float output of both models, over values that are finite in both.
        flips: decisions that the export changed; None if the model makes no decision, or nothing was compared.
        null_reasons: why `max_abs` or `flips` is None.
    """

    outputs: Mapping[str, Moments]
    flips: int | None
    null_reasons: Mapping[str, str]

    @property
    def max_abs(self) -> float | None:
        """The largest absolute difference over all outputs."""
        return max((output.largest for output in self.outputs.values()), default=None)


def measure_drift(
    answers: Iterable[tuple[np.ndarray, Outputs]],
    source_answers: SourceAnswers | None,
    judge: np.ndarray,
    labels: Callable[[np.ndarray], np.ndarray | None],
) -> Drift:
    """Compare the exported model with its source on the judge samples.

    Args:
        answers: sample indices and outputs of the exported model, for all samples.
        source_answers: those of the framework; None if the source is ONNX already.
        judge: indices of the judge samples, int64.
        labels: gives the labels of samples by index, which help to find the decision among the outputs.

    Raises:
        StageError: the source fails on a sample.
    """
    compared: dict[str, Moments] = {}
    flips = 0
    decider: decisions.Decider | None = None
    for indices, outputs in answers:
        judged = np.isin(indices, judge)
        if source_answers is None or not judged.any():
            continue
        source = source_answers(indices, list(outputs))
        # The same values may have another shape, such as a column for a vector.
        source = {name: array for name, array in source.items() if array.size == outputs[name].size}
        reference = {name: _judged(array, judged) for name, array in source.items()}
        exported = {name: _judged(outputs[name].reshape(array.shape), judged) for name, array in source.items()}
        for name, array in reference.items():
            if array.dtype.kind == "f":
                finite = np.isfinite(array) & np.isfinite(exported[name])
                before, after = (side[finite].astype(np.float64) for side in (array, exported[name]))
                compared.setdefault(name, Moments()).add_values(before, after - before)
        if decider is None:  # the batch size is fixed, so the first batch is the same in every run
            decider = decisions.choose(reference, labels(indices[judged]))
        if decider.decides:
            flips += int(np.count_nonzero(decider.read(reference).flips(decider.read(exported))))
    decides = decider is not None and decider.decides
    reasons = {
        "max_abs": "" if compared else "the source and the export have no numeric output in common",
        "flips": "" if decides else "the model makes no decision",
    }
    if source_answers is None:
        reasons = dict.fromkeys(reasons, "the source is ONNX already")
    known = {key: reason for key, reason in reasons.items() if reason}
    return Drift(compared, flips if decides else None, known)


def _judged(array: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """The judged rows; the whole array if axis 0 does not count samples."""
    return array[judged] if len(array) == len(judged) else array
