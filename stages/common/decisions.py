"""What a model decides for each sample: which output holds the decision, and how clear it is."""

import math
from collections.abc import Callable, Iterable, Mapping
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
        scores: the output of class scores, of this `kind`, with its classes along `axis`; if None, margins are unknown.
        threshold: on the probability of class 1; takes precedence over label and argmax.
        binary: the output whose last column scores class 1 of two, for the AUC; or None.
        many: whether a sample has a decision at each of several positions.
    """

    label: str | None = None
    scores: str | None = None
    kind: ScoreKind = "scores"
    axis: int = -1
    threshold: float | None = None
    binary: str | None = None
    many: bool = False

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
        if self.scores is None:
            return "no decision"
        last = " along the last axis" if self.many else ""
        return f"argmax of {self.scores}{last if self.axis == -1 else f' along axis {self.axis}'}"

    def read(self, outputs: Outputs) -> "Decided":
        """The decisions in these outputs, and the scores behind them."""
        scores = None if self.scores is None else as_scores(outputs[self.scores], self.axis)
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

    Class scores are rows of two or more floats, along an axis of `class_axes`, that are probabilities or their
    logarithms; failing that, floats that the labels index, that are called logits, or that come with a label output.
    Maps of scores, [n, classes, height, width], do not decide by their name, but by labels of one class per place. A
    label output holds text, integers or booleans, one per sample or one per row of scores. With `classifier`, params
    say that the model decides, so any floats may be scores.
    """
    decider = _decider(outputs, labels, threshold, classifier=classifier)
    many = decider.scores is not None and not _is_flat(outputs[decider.scores])
    return replace(decider, binary=_binary(outputs, labels, decider), many=many)


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


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether rows [rows, classes] lie in [0, 1] and, if there are several classes, sum to 1; ignores rows with NaN."""
    finite = scores[np.isfinite(scores).all(axis=1)].astype(np.float64)
    if not finite.size or finite.min() < -1e-6 or finite.max() > 1 + 1e-6:
        return False
    return scores.shape[1] == 1 or bool(np.abs(finite.sum(axis=1) - 1).max() < 1e-3)


def are_log_probabilities(scores: np.ndarray) -> bool:
    """Whether the exponentials of rows [rows, classes] are probabilities."""
    return scores.shape[1] > 1 and are_probabilities(np.exp(np.minimum(scores, 1.0)))


def class_axes(array: np.ndarray) -> tuple[int, ...]:
    """The axes along which an output may hold its classes: the last, or of [n, classes, positions, ...] the second.

    The likelier one comes first: the last, except that of maps, [n, a, ..., b], it is the shorter of the two, a if they
    are equally long.
    """
    if _is_flat(array):
        return (-1,)
    return (1, -1) if _is_map(array) and array.shape[1] <= array.shape[-1] else (-1, 1)


def probability_axes(array: np.ndarray, test: Callable[[np.ndarray], bool] = are_probabilities) -> tuple[int, ...]:
    """Those of the `class_axes` along which all rows are probabilities, or pass another test; the last one first.

    One value in [0, 1] is a probability if a sample has no other: else it may be a pixel.
    """
    rows = {axis: as_scores(array, axis) for axis in sorted(class_axes(array))}
    classes = {axis: scores for axis, scores in rows.items() if scores.shape[1] > 1 or len(scores) == len(array)}
    return tuple(axis for axis, scores in classes.items() if test(scores))


def as_scores(array: np.ndarray, axis: int = -1) -> np.ndarray:
    """Scores as rows [rows, classes], with the classes along an axis, by default the last.

    [n, k] and [n, k, 1, 1] are n rows; [n, positions, k] is n * positions rows; [n] and [n, 1] are n rows of one score.
    """
    if _is_flat(array):
        return array.reshape(-1, array.shape[1] if array.ndim > 1 else 1)
    return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])


def _is_flat(array: np.ndarray) -> bool:
    """Whether samples are vectors, [n, k], maybe with further axes of size 1."""
    return math.prod(array.shape[2:]) == 1


def _is_map(array: np.ndarray) -> bool:
    """Whether samples are maps, [n, a, ..., b]: the axes between a and b hold more than one place."""
    return math.prod(array.shape[2:-1]) > 1


@dataclass(frozen=True)
class _Scores:
    """An output of floats as rows of scores, [rows, classes], with its classes along `axis`."""

    name: str
    axis: int
    rows: np.ndarray

    @property
    def classes(self) -> int:
        return int(self.rows.shape[1])


def _decider(outputs: Outputs, labels: np.ndarray | None, threshold: float | None, *, classifier: bool) -> Decider:
    floats = {name: array for name, array in outputs.items() if array.dtype.kind == "f" and array.size}
    scored = [
        _Scores(name, axis, as_scores(array, axis)) for name, array in floats.items() for axis in class_axes(array)
    ]
    label = _label(outputs, labels)
    binary = [scores for scores in scored if scores.classes <= 2]
    if threshold is not None and binary:
        probable = [scores for scores in binary if are_probabilities(scores.rows)]
        first = (probable or binary)[0]
        return Decider(label, first.name, "probabilities" if probable else "scores", first.axis, threshold)
    wide = [scores for scores in scored if scores.classes >= 2]
    if label is not None:
        wide = [scores for scores in wide if len(scores.rows) == outputs[label].size]
    for scores in wide:
        if are_probabilities(scores.rows):
            return Decider(label, scores.name, "probabilities", scores.axis)
    for scores in wide:
        if are_log_probabilities(scores.rows):
            return Decider(label, scores.name, axis=scores.axis)
    # One label per row says along which axis the classes are.
    for scores in sorted(wide, key=lambda scores: labels is not None and labels.size != len(scores.rows)):
        is_map = _is_map(outputs[scores.name])
        if classifier or label is not None or _likely(scores.name, labels, scores.rows, is_map=is_map):
            return Decider(label, scores.name, axis=scores.axis)
    return Decider(label)


def _likely(name: str, labels: np.ndarray | None, scores: np.ndarray, *, is_map: bool) -> bool:
    """Whether raw scores [rows, classes] are class scores, by the labels or the output's name."""
    indexed = _indexes(labels, scores.shape[1])
    if is_map:
        return indexed and labels is not None and labels.size == len(scores)
    return indexed or "logit" in name.lower()


def _binary(outputs: Outputs, labels: np.ndarray | None, decider: Decider) -> str | None:
    """The output whose last column scores class 1 of two, if the labels are 0 and 1; else None."""
    if labels is None or not _indexes(labels, 2) or decider.axis != -1:
        return None
    if decider.scores is not None:
        rows = as_scores(outputs[decider.scores])
        return decider.scores if rows.shape[1] <= 2 and len(rows) == labels.size else None
    single = (name for name, array in outputs.items() if array.dtype.kind == "f" and array.size == len(array) > 0)
    return next((name for name in single if are_probabilities(as_scores(outputs[name]))), None)


def _label(outputs: Outputs, labels: np.ndarray | None) -> str | None:
    """The output with one decision per sample or per row of probabilities; of several, the one named "label"."""
    if not outputs:
        return None
    sizes = {len(next(iter(outputs.values())))}
    for array in outputs.values():
        if array.dtype.kind == "f" and array.size:
            sizes.update(len(as_scores(array, axis)) for axis in probability_axes(array))
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
