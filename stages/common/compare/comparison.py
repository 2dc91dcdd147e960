"""All outputs of two models: per output, decisions, probabilities and the task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.common.compare.calibration import CalibrationError, Divergence
from stages.common.compare.flips import Flips, TopFive
from stages.common.compare.output import OutputComparison
from stages.common.compare.task import Accuracy, Auc, Regression
from stages.common.decisions import Decider, as_scores

Outputs = Mapping[str, np.ndarray]


class MismatchError(ValueError):
    """The two sides do not have the same outputs: another name or kind."""


@dataclass
class Comparison:
    """Everything measured of two models over the samples seen so far. Merging parts gives what one pass would.

    Attributes:
        decider: which output decides; `decisions.choose` finds it.
        outputs: figures of each output, by name, in the order of the reference.
    """

    decider: Decider = field(default_factory=Decider)
    samples: int = 0
    outputs: dict[str, OutputComparison] = field(default_factory=dict)
    flips: Flips = field(default_factory=Flips)
    top_five: TopFive = field(default_factory=TopFive)
    divergence: Divergence = field(default_factory=Divergence)
    calibration: tuple[CalibrationError, CalibrationError] = field(
        default_factory=lambda: (CalibrationError(), CalibrationError())
    )
    accuracy: Accuracy = field(default_factory=Accuracy)
    auc: Auc = field(default_factory=Auc)
    regression: Regression = field(default_factory=Regression)

    def update(self, indices: np.ndarray, reference: Outputs, candidate: Outputs, labels: Any = None) -> None:
        """Add some samples.

        Args:
            indices: of the samples in the evaluation data, int64 [n].
            reference: outputs by name, arrays with the n samples along axis 0.
            candidate: the other model's.
            labels: of these samples, [n] or [n, columns], or None.

        Raises:
            MismatchError: names or kinds differ.
        """
        _same_interface(reference, candidate)
        # Infinities and values whose square overflows are expected: they end as figures that are not finite.
        with np.errstate(invalid="ignore", over="ignore"):
            self._update(indices, reference, candidate, labels)

    def _update(self, indices: np.ndarray, reference: Outputs, candidate: Outputs, labels: Any) -> None:
        self.samples += len(indices)
        for name, array in reference.items():
            if name not in self.outputs:
                self.outputs[name] = OutputComparison(name, array.dtype.str)
            self.outputs[name].update(indices, array, candidate[name])
        if any(array.shape != candidate[name].shape for name, array in reference.items()):
            return
        if self.decider.decides:
            self._update_decisions(indices, reference, candidate, labels)
        if labels is not None:
            self._update_numbers(indices, reference, candidate, np.asarray(labels))

    def merge(self, other: "Comparison") -> None:
        """Add what another process saw of other samples, under the same decider."""
        self.samples += other.samples
        for name, output in other.outputs.items():
            if name not in self.outputs:
                self.outputs[name] = OutputComparison(name, output.dtype)
            self.outputs[name].merge(output)
        self.flips.merge(other.flips)
        self.top_five.merge(other.top_five)
        self.divergence.merge(other.divergence)
        for mine, theirs in zip(self.calibration, other.calibration, strict=True):
            mine.merge(theirs)
        self.accuracy.merge(other.accuracy)
        self.auc.merge(other.auc)
        self.regression.merge(other.regression)

    @property
    def floats(self) -> list[OutputComparison]:
        return [each for each in self.outputs.values() if each.is_float]

    @property
    def max_abs(self) -> float | None:
        """The largest absolute difference of any float output; None where there is no value to compare."""
        return max((each.error.largest for each in self.floats if each.error.count), default=None)

    def _update_decisions(self, indices: np.ndarray, reference: Outputs, candidate: Outputs, labels: Any) -> None:
        decided = self.decider.decide(reference), self.decider.decide(candidate)
        rows = np.repeat(indices, len(decided[0]) // max(1, len(indices)))
        self.flips.update(rows, *decided, self.decider.margin(reference))
        if self.decider.scores is not None:
            self.top_five.update(*(as_scores(each[self.decider.scores]) for each in (reference, candidate)))
        probabilities = self.decider.probabilities(reference), self.decider.probabilities(candidate)
        if probabilities[0] is not None and probabilities[1] is not None:
            self.divergence.update(probabilities[0], probabilities[1])
        if labels is None:
            return
        right = [matches(each, np.asarray(labels)) for each in decided]
        if right[0] is None or right[1] is None:
            return
        self.accuracy.update(right[0], right[1])
        for side in (0, 1):
            each, correct = probabilities[side], right[side]
            if each is not None and correct is not None:
                self.calibration[side].update(each, correct)

    def _update_numbers(self, indices: np.ndarray, reference: Outputs, candidate: Outputs, labels: np.ndarray) -> None:
        if labels.dtype.kind not in "iufb" or not len(labels):
            return
        if self.decider.binary is not None:
            sides = (as_scores(each[self.decider.binary])[:, -1].astype(np.float64) for each in (reference, candidate))
            positive = labels.reshape(-1) > 0
            self.auc.update(np.repeat(indices, len(positive) // len(indices)), positive, *sides)
        elif not self.decider.decides:
            columns = labels.reshape(len(labels), -1).astype(np.float64)
            for name, array in reference.items():
                if array.dtype.kind == "f" and array.size == columns.size:
                    sides = (each[name].reshape(columns.shape).astype(np.float64) for each in (reference, candidate))
                    self.regression.update(indices, columns, *sides)
                    return


def matches(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Where decisions equal labels, bool [rows]; None where the two cannot be compared (text against numbers).

    A decision of type bool is class 1 or class 0.
    """
    if labels.size != len(decisions):
        return None
    labels = labels.reshape(-1)
    text = [each.dtype.kind in "OUS" for each in (decisions, labels)]
    if all(text):
        return np.asarray(decisions.astype(str) == labels.astype(str))
    if any(text):
        return None
    return np.asarray(decisions == labels)


def _same_interface(reference: Outputs, candidate: Outputs) -> None:
    if set(reference) != set(candidate):
        missing = sorted(set(reference) ^ set(candidate))
        raise MismatchError(f"output {missing[0]} is on one side only")
    for name, array in reference.items():
        other = candidate[name]
        if (array.dtype.kind == "f") != (other.dtype.kind == "f"):
            raise MismatchError(f"output {name} is {array.dtype} on one side, {other.dtype} on the other")
