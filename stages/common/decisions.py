"""What a model decides for each sample: which output holds the decision, and how clear it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

DECIDING_SAMPLES = 256
DECIDING_BYTES = 64 << 20
"""The most samples and bytes of outputs that are read to find the decision."""

TIE = 1e-6
"""Below this margin the reference itself cannot tell, so a changed decision is a tie, not a flip."""

ScoreKind = Literal["probabilities", "scores"]
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Decider:
    """Which outputs hold the decision.

    Attributes:
        label: the output that holds the decision; if None, the decision is the argmax of `scores`.
        scores: the output of class scores, of this `kind`; if None, margins are unknown.
        threshold: on the probability of class 1; takes precedence over label and argmax.
        binary: the output whose last column scores class 1 of two, for the AUC; or None.
    """

    label: str | None = None
    scores: str | None = None
    kind: ScoreKind = "scores"
    threshold: float | None = None
    binary: str | None = None

    @property
    def decides(self) -> bool:
        return self.label is not None or self.scores is not None

    @property
    def description(self) -> str:
        """What decides, e.g. "argmax of probabilities"."""
        if self.threshold is not None and self.scores is not None:
            return f"{self.scores} >= {self.threshold:g}"
        if self.label is not None:
            return f"label output {self.label}"
        return f"argmax of {self.scores}" if self.scores is not None else "no decision"

    def read(self, outputs: Outputs) -> "Decided":
        """The decisions in these outputs, and the scores behind them."""
        scores = None if self.scores is None else as_scores(outputs[self.scores])
        if self.threshold is not None and scores is not None:
            return Decided(self, np.asarray(scores[:, -1] >= self.threshold), scores)
        if self.label is not None:
            return Decided(self, outputs[self.label].reshape(-1), scores)
        assert scores is not None
        return Decided(self, np.asarray(scores.argmax(axis=1)), scores)


@dataclass(frozen=True)
class Decided:
    """Decisions of one model.

    Attributes:
        decisions: one per row of scores: [rows], of the label output's dtype, bool or int64.
        scores: [rows, classes], of the output's dtype; None if unknown.
    """

    decider: Decider
    decisions: np.ndarray
    scores: np.ndarray | None

    @cached_property
    def probabilities(self) -> np.ndarray | None:
        """Class probabilities, float64 [rows, classes]; None if the scores are not probabilities."""
        if self.scores is None or self.decider.kind == "scores":
            return None
        scores = self.scores.astype(np.float64)
        return np.concatenate((1 - scores, scores), axis=1) if scores.shape[1] == 1 else scores

    @cached_property
    def margins(self) -> np.ndarray | None:
        """How clear each decision is, in units of probability, float64 [rows]: the best class minus the second.

        Raw scores go through a softmax first. With a threshold t the margin is 2 |p - t|. None without scores.
        """
        if self.scores is None:
            return None
        if self.decider.threshold is not None:
            return 2 * np.abs(self.scores[:, -1].astype(np.float64) - self.decider.threshold)
        probabilities = self.probabilities
        if probabilities is None:
            raised = np.exp(self.scores.astype(np.float64) - self.scores.max(axis=1, keepdims=True))
            probabilities = raised / raised.sum(axis=1, keepdims=True)
        best = np.partition(probabilities, -2, axis=1)
        return np.asarray(best[:, -1] - best[:, -2])

    def flips(self, candidate: "Decided") -> np.ndarray:
        """Where the candidate decides differently and this decision is not a tie, see `TIE`; bool [rows]."""
        changed = np.asarray(self.decisions != candidate.decisions)
        return changed if self.margins is None else changed & ~(self.margins < TIE)


def choose(
    outputs: Outputs, labels: np.ndarray | None = None, *, threshold: float | None = None, classifier: bool = False
) -> Decider:
    """Find the decision, and the scores behind it, among outputs of the reference model, samples along axis 0.

    Class scores are rows of two or more floats, along the last axis, that are probabilities or their logarithms;
    failing that, floats that the labels index, that are called logits, or that come with a label output; maps of
    scores, [n, classes, height, width], have their classes elsewhere and do not decide by their labels or name. A label
    output holds text, integers or booleans, one per sample or one per row of scores. With `classifier`, params say
    that the model decides, so any floats may be scores.
    """
    decider = _decider(outputs, labels, threshold, classifier=classifier)
    return replace(decider, binary=_binary(outputs, labels, decider.scores))


def leading(chunks: Iterable[Outputs]) -> tuple[dict[str, np.ndarray], bool]:
    """The first samples of a stream of outputs, for `choose`: the same however the stream is cut.

    At most `DECIDING_SAMPLES`, and none after the first sample whose outputs have other shapes.

    Returns:
        Arrays by name, and whether the chunks held enough: then more of the stream would change nothing.
    """
    taken: list[Outputs] = []
    samples, wanted, shapes = 0, DECIDING_SAMPLES, None
    for chunk in chunks:
        size = len(next(iter(chunk.values()), ()))
        if not size:
            continue
        if shapes is None:
            shapes = {name: array.shape[1:] for name, array in chunk.items()}
            sample_bytes = sum(array[:1].nbytes for array in chunk.values())
            wanted = max(1, min(DECIDING_SAMPLES, DECIDING_BYTES // max(1, sample_bytes)))
        elif shapes != {name: array.shape[1:] for name, array in chunk.items()}:
            wanted = samples
            break
        taken.append({name: array[: wanted - samples] for name, array in chunk.items()})
        samples += min(size, wanted - samples)
        if samples == wanted:
            break
    names = taken[0] if taken else ()
    return {name: np.concatenate([chunk[name] for chunk in taken]) for name in names}, samples == wanted


def as_scores(array: np.ndarray) -> np.ndarray:
    """Scores as rows [rows, classes]: along the last axis, ignoring trailing axes of size 1.

    [n, k] and [n, k, 1, 1] are n rows; [n, positions, k] is n * positions rows; [n] and [n, 1] are n rows of one score.
    """
    shape = array.shape
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return array.reshape(-1, shape[-1] if len(shape) > 1 else 1)


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether rows [rows, classes] lie in [0, 1] and, if there are several classes, sum to 1; ignores rows with NaN."""
    finite = scores[np.isfinite(scores).all(axis=1)].astype(np.float64)
    if not finite.size or finite.min() < -1e-6 or finite.max() > 1 + 1e-6:
        return False
    return scores.shape[1] == 1 or bool(np.abs(finite.sum(axis=1) - 1).max() < 1e-3)


def are_log_probabilities(scores: np.ndarray) -> bool:
    """Whether the exponentials of rows [rows, classes] are probabilities."""
    return scores.shape[1] > 1 and are_probabilities(np.exp(np.minimum(scores, 1.0)))


def _decider(outputs: Outputs, labels: np.ndarray | None, threshold: float | None, *, classifier: bool) -> Decider:
    scored = {name: as_scores(array) for name, array in outputs.items() if array.dtype.kind == "f" and array.size}
    label = _label(outputs, labels)
    if threshold is not None:
        binary = {name: scores for name, scores in scored.items() if scores.shape[1] <= 2}
        for name, scores in binary.items():
            if are_probabilities(scores):
                return Decider(label, name, "probabilities", threshold)
        if binary:
            return Decider(label, next(iter(binary)), "scores", threshold)
    wide = {name: scores for name, scores in scored.items() if scores.shape[1] >= 2}
    if label is not None:
        wide = {name: scores for name, scores in wide.items() if len(scores) == outputs[label].size}
    for name, scores in wide.items():
        if are_probabilities(scores):
            return Decider(label, name, "probabilities")
    for name, scores in wide.items():
        if are_log_probabilities(scores):
            return Decider(label, name)
    for name, scores in wide.items():
        is_map = len(outputs[name].shape) > 3 and outputs[name].shape[3] > 1
        likely = not is_map and ("logit" in name.lower() or _indexes(labels, scores.shape[1]))
        if classifier or label is not None or likely:
            return Decider(label, name)
    return Decider(label)


def _binary(outputs: Outputs, labels: np.ndarray | None, scores: str | None) -> str | None:
    if labels is None or not _indexes(labels, 2):
        return None
    if scores is not None:
        rows = as_scores(outputs[scores])
        return scores if rows.shape[1] <= 2 and len(rows) == labels.size else None
    single = (name for name, array in outputs.items() if array.dtype.kind == "f" and array.size == len(array) > 0)
    return next((name for name in single if are_probabilities(as_scores(outputs[name]))), None)


def _label(outputs: Outputs, labels: np.ndarray | None) -> str | None:
    """The output with one decision per sample or per row of probabilities; of several, the one named "label"."""
    if not outputs:
        return None
    sizes = {len(next(iter(outputs.values())))}
    for array in outputs.values():
        if array.dtype.kind == "f" and array.size and are_probabilities(as_scores(array)):
            sizes.add(len(as_scores(array)))
    if labels is not None:
        sizes.add(labels.size)
    names = [name for name, array in outputs.items() if array.dtype.kind in "iuUOSb" and array.size in sizes]
    return next((name for name in names if "label" in name.lower()), next(iter(names), None))


def _indexes(labels: np.ndarray | None, classes: int) -> bool:
    """Whether the labels are whole numbers from 0 to classes - 1."""
    if labels is None or not labels.size or labels.dtype.kind not in "iuf":
        return False
    whole = bool(np.all(np.mod(labels, 1) == 0))
    return whole and float(labels.min()) >= 0 and float(labels.max()) < classes
