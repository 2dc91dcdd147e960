"""Two models compared over a stream of outputs: each output, decisions, probabilities and the task metric.

Every statistic is a small class with `update` and `merge`, so that shards of the stream can be compared separately and
merged in any order. Memory does not grow with the stream, except for 17 bytes per sample of a binary classifier with
labels, whose AUC needs every score.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from stages.common.base.files import rounded_tree
from stages.common.compare.decided import DecisionComparison
from stages.common.compare.output import OVERFLOW, OutputComparison
from stages.common.compare.task import Accuracy, Auc, Regression, task_figures
from stages.common.decisions import Decider, Outputs, as_scores, choose, leading

Choose = Callable[[Outputs, np.ndarray | None], Decider]
Labels = Callable[[np.ndarray], np.ndarray | None]
Tree = dict[str, Any]

PART_BYTES = 16 << 20
"""Bytes of the reference's outputs that are compared at a time: comparing takes many times as much memory."""

DIGITS = 6
"""Significant digits in the details; the rules are evaluated on these rounded figures."""


@dataclass(frozen=True)
class OutputPair:
    """Outputs of both models for the same samples: indices [n], and arrays with the samples along axis 0."""

    indices: np.ndarray
    reference: Outputs
    candidate: Outputs


class MismatchError(ValueError):
    """The outputs of the two models differ in name or kind."""


@dataclass
class Comparison:
    """Everything measured on the samples seen so far; outputs by name, in the order of the reference."""

    decider: Decider = field(default_factory=Decider)
    samples: int = 0
    outputs: dict[str, OutputComparison] = field(default_factory=dict)
    decisions: DecisionComparison = field(default_factory=DecisionComparison)
    accuracy: Accuracy = field(default_factory=Accuracy)
    auc: Auc = field(default_factory=Auc)
    regression: Regression = field(default_factory=Regression)
    labelled: bool = False

    def update(self, indices: np.ndarray, reference: Outputs, candidate: Outputs, labels: Any = None) -> None:
        """Add n samples, see `OutputPair`; their labels are [n], [n, columns] or None.

        Raises:
            MismatchError: names or kinds of the outputs differ.
        """
        _same_interface(reference, candidate)
        known, count = None if labels is None else np.asarray(labels), len(indices)
        size = sum(array.nbytes for array in reference.values())
        if size > PART_BYTES and all(len(array) == count > 1 for array in (*reference.values(), *candidate.values())):
            step = max(1, count * PART_BYTES // size)
            for start in range(0, count, step):
                part = slice(start, start + step)
                before, after = ({name: array[part] for name, array in side.items()} for side in (reference, candidate))
                self._update(indices[part], before, after, None if known is None else known[part])
        else:
            self._update(indices, reference, candidate, known)

    def _update(self, indices: np.ndarray, reference: Outputs, candidate: Outputs, known: np.ndarray | None) -> None:
        # Infinities and squares that overflow are expected: they end up as figures that are not finite.
        with np.errstate(invalid="ignore", over="ignore"):
            self.samples += len(indices)
            for name, array in reference.items():
                if name not in self.outputs:
                    self.outputs[name] = OutputComparison(name, array.dtype.str)
                self.outputs[name].update(indices, array, candidate[name])
            if any(array.shape != candidate[name].shape for name, array in reference.items()):
                return
            self.labelled |= known is not None
            if self.decider.decides:
                sides = self.decider.read(reference), self.decider.read(candidate)
                right = self.decisions.update(indices, *sides, known)
                if right is not None:
                    self.accuracy.update(*right, samples=len(indices))
            if known is not None and known.dtype.kind in "iufb" and len(known):
                self._update_numbers(indices, reference, candidate, known)

    def merge(self, other: "Comparison") -> None:
        """Add the statistics of other samples, under the same decider."""
        self.samples += other.samples
        for name, output in other.outputs.items():
            self.outputs.setdefault(name, OutputComparison(name, output.dtype)).merge(output)
        self.decisions.merge(other.decisions)
        self.accuracy.merge(other.accuracy)
        self.auc.merge(other.auc)
        self.regression.merge(other.regression)
        self.labelled |= other.labelled

    @property
    def floats(self) -> list[OutputComparison]:
        """The outputs compared by distance."""
        return [output for output in self.outputs.values() if output.is_float]

    def figures(self) -> Tree:
        """The figures as the details hold them, rounded to `DIGITS`, with the reason for each null."""
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = {name: output.figures() for name, output in self.outputs.items()}
            decisions, probabilities = self.decisions.figures()
            task = task_figures(self.accuracy, self.auc, self.regression, labelled=self.labelled)
        measured = {
            "outputs": {name: figures for name, (figures, _) in outputs.items()},
            "decisions": decisions,
            "probabilities": probabilities,
            "task": task,
        }
        judged = {
            "samples": self.samples,
            "decision": self.decider.description,
            "threshold": self.decider.threshold,
            "scored_label": self.decider.label if self.decider.scores else None,
        }
        tree: Tree = {"judged": judged, **rounded_tree(measured, DIGITS), "null_reasons": {}}
        why = {name: null for name, (_, null) in outputs.items()}
        for name, figures in tree["outputs"].items():
            nulls = {key: why[name][key] for key, value in figures.items() if value is None and key in why[name]}
            tree["null_reasons"] |= {f"outputs.{name}.{key}": reason for key, reason in nulls.items()}
            if "nrmse" in nulls:
                figures["nrmse_reason"] = nulls["nrmse"]
        undecided = "no output is recognized as a label or as class scores"
        for group, reason in (
            (
                "decisions",
                "no decision flipped, or margins and ranks are unknown without class scores"
                if decisions["count"]
                else undecided,
            ),
            ("probabilities", "needs class probabilities; the calibration error also needs labels of these classes"),
            ("task", task["reason"] or OVERFLOW),
        ):
            tree["null_reasons"] |= {f"{group}.{key}": reason for key, value in tree[group].items() if value is None}
        return tree

    def _update_numbers(self, indices: np.ndarray, reference: Outputs, candidate: Outputs, labels: np.ndarray) -> None:
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


def compare(pairs: Iterable[OutputPair], labels: Labels | None = None, decider: Choose = choose) -> Comparison:
    """Compare two models over a stream of outputs. How the stream is cut into pairs does not matter.

    `labels` gives the labels of samples by index; `decider` finds the decision in the reference's outputs of the first
    samples and their labels.

    Raises:
        MismatchError: names or kinds of the outputs differ.
    """
    known = labels or (lambda _: None)
    stream, first, outputs = iter(pairs), list[OutputPair](), dict[str, np.ndarray]()
    for pair in stream:
        first.append(pair)
        outputs, enough = leading([seen.reference for seen in first])
        if enough:
            break
    if not first:
        return Comparison()
    indices = np.concatenate([pair.indices for pair in first])[: len(next(iter(outputs.values()), ()))]
    comparison = Comparison(decider(outputs, known(indices)))
    for pair in chain(first, stream):
        comparison.update(pair.indices, pair.reference, pair.candidate, known(pair.indices))
    return comparison


def _same_interface(reference: Outputs, candidate: Outputs) -> None:
    if set(reference) != set(candidate):
        missing = sorted(set(reference) ^ set(candidate))
        raise MismatchError(f"only one of them has the output {missing[0]}")
    for name, array in reference.items():
        other = candidate[name]
        if (array.dtype.kind == "f") != (other.dtype.kind == "f"):
            raise MismatchError(f"the output {name} is {array.dtype} in one, {other.dtype} in the other")
