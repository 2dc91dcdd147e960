"""All outputs of two models: each output, decisions, probabilities and the task metric; of arrays or of a stream."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.common.compare.confidence import ConfidenceError, Divergence
from stages.common.compare.flips import Flips, TopFive
from stages.common.compare.output import OutputComparison
from stages.common.compare.task import Accuracy, Auc, Regression, TaskMetric, task_metric
from stages.common.decisions import Decider, Outputs, as_scores, choose, leading

Choose = Callable[[Outputs, np.ndarray | None], Decider]


@dataclass(frozen=True)
class OutputPair:
    """Outputs of both models for the same samples: indices [n], and arrays with the samples along axis 0."""

    indices: np.ndarray
    reference: Outputs
    candidate: Outputs


class MismatchError(ValueError):
    """The two sides have different outputs: another name or kind."""


@dataclass
class Comparison:
    """Everything measured of two models over the samples seen so far. Merging shards gives what one pass would.

    Attributes:
        decider: which output decides; `decisions.choose` finds it.
        outputs: figures by output name, in the order of the reference.
        confidence: confidence error of the reference and of the candidate.
    """

    decider: Decider = field(default_factory=Decider)
    samples: int = 0
    outputs: dict[str, OutputComparison] = field(default_factory=dict)
    flips: Flips = field(default_factory=Flips)
    top_five: TopFive = field(default_factory=TopFive)
    divergence: Divergence = field(default_factory=Divergence)
    confidence: tuple[ConfidenceError, ConfidenceError] = field(
        default_factory=lambda: (ConfidenceError(), ConfidenceError())
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
        """Add what was seen of other samples, under the same decider."""
        self.samples += other.samples
        for name, output in other.outputs.items():
            if name not in self.outputs:
                self.outputs[name] = OutputComparison(name, output.dtype)
            self.outputs[name].merge(output)
        self.flips.merge(other.flips)
        self.top_five.merge(other.top_five)
        self.divergence.merge(other.divergence)
        for mine, theirs in zip(self.confidence, other.confidence, strict=True):
            mine.merge(theirs)
        self.accuracy.merge(other.accuracy)
        self.auc.merge(other.auc)
        self.regression.merge(other.regression)

    @property
    def floats(self) -> list[OutputComparison]:
        """The outputs that are compared by distance."""
        return [output for output in self.outputs.values() if output.is_float]

    @property
    def max_abs(self) -> float | None:
        """The largest absolute difference of any float output; None where there is no value to compare."""
        return max((output.absolute.largest for output in self.floats if output.absolute.count), default=None)

    @property
    def task(self) -> TaskMetric:
        """The task metric of both models on the labels."""
        return task_metric(self.accuracy, self.auc, self.regression)

    def _update_decisions(self, indices: np.ndarray, reference: Outputs, candidate: Outputs, labels: Any) -> None:
        decided = self.decider.decide(reference), self.decider.decide(candidate)
        rows = np.repeat(indices, len(decided[0]) // max(1, len(indices)))
        self.flips.update(rows, *decided, self.decider.margin(reference))
        if self.decider.scores is not None:
            self.top_five.update(*(as_scores(side[self.decider.scores]) for side in (reference, candidate)))
        probabilities = self.decider.probabilities(reference), self.decider.probabilities(candidate)
        if probabilities[0] is not None and probabilities[1] is not None:
            self.divergence.update(probabilities[0], probabilities[1])
        if labels is None:
            return
        right = [matches(decisions, np.asarray(labels)) for decisions in decided]
        if right[0] is None or right[1] is None:
            return
        self.accuracy.update(right[0], right[1])
        for side in (0, 1):
            scores, correct = probabilities[side], right[side]
            if scores is not None and correct is not None:
                self.confidence[side].update(scores, correct)

    def _update_numbers(self, indices: np.ndarray, reference: Outputs, candidate: Outputs, labels: np.ndarray) -> None:
        if labels.dtype.kind not in "iufb" or not len(labels):
            return
        if self.decider.binary is not None:
            sides = (as_scores(side[self.decider.binary])[:, -1].astype(np.float64) for side in (reference, candidate))
            positive = labels.reshape(-1) > 0
            self.auc.update(np.repeat(indices, len(positive) // len(indices)), positive, *sides)
        elif not self.decider.decides:
            columns = labels.reshape(len(labels), -1).astype(np.float64)
            for name, array in reference.items():
                if array.dtype.kind == "f" and array.size == columns.size:
                    sides = (side[name].reshape(columns.shape).astype(np.float64) for side in (reference, candidate))
                    self.regression.update(indices, columns, *sides)
                    return


def compare(
    pairs: Iterable[OutputPair],
    labels: Callable[[np.ndarray], np.ndarray | None] | None = None,
    decider: Choose = choose,
) -> Comparison:
    """Compare two models over a stream of outputs. How the stream is cut into pairs does not matter.

    Args:
        pairs: outputs of both for some samples at a time; a thousand at a time make the arithmetic cheap.
        labels: gives the labels of samples by their indices, e.g. `EvalData.labels`.
        decider: finds the decision among the reference's outputs of the first samples, and their labels.

    Raises:
        MismatchError: names or kinds of the outputs differ.
    """
    comparison: Comparison | None = None
    waiting: list[OutputPair] = []

    def begin() -> Comparison:
        outputs, _ = leading(pair.reference for pair in waiting)
        samples = np.concatenate([pair.indices for pair in waiting])[: len(next(iter(outputs.values()), ()))]
        begun = Comparison(decider(outputs, None if labels is None else labels(samples)))
        for pair in waiting:
            begun.update(pair.indices, pair.reference, pair.candidate, None if labels is None else labels(pair.indices))
        return begun

    for pair in pairs:
        if comparison is not None:
            known = None if labels is None else labels(pair.indices)
            comparison.update(pair.indices, pair.reference, pair.candidate, known)
            continue
        waiting.append(pair)
        if leading(waiting_pair.reference for waiting_pair in waiting)[1]:
            comparison = begin()
    if comparison is None:
        return begin() if waiting else Comparison()
    return comparison


def matches(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Where decisions equal labels, bool [rows]; None where the two cannot be compared (text against numbers).

    A decision of type bool is class 1 or class 0.
    """
    if labels.size != len(decisions):
        return None
    labels = labels.reshape(-1)
    text = [array.dtype.kind in "OUS" for array in (decisions, labels)]
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
