"""What a model decides for each sample: which output says it, how clear it was, and how often it flips."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

TIE = 1e-6
"""Below this margin the fp32 model itself does not know: a change is a tie, not a flip."""

CONFIDENT = 0.1
"""From this margin on a flip is a confident one: healthy INT8 models have none."""

TOP = 5
SHOWN = 20

ScoreKind = Literal["probabilities", "log-probabilities", "scores"]


@dataclass(frozen=True)
class Decider:
    """Where the decision stands among the outputs.

    Attributes:
        label: the output that holds the decision itself, or None: it is then the argmax of `scores`.
        scores: the output of class scores, or None: nothing is known about margins.
        kind: what the scores are.
        threshold: decides on the probability of class 1, and goes before label and argmax.
        binary: the output whose last column scores class 1 of two, or None: it gives the AUC.
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
    def words(self) -> str:
        if self.threshold is not None and self.scores is not None:
            return f"{self.scores} >= {self.threshold:g}"
        if self.label is not None:
            return f"label output {self.label}"
        return f"argmax of {self.scores}" if self.scores is not None else "no decision"

    def decide(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The decisions, one a row of scores: shape [rows], in the type of the label output, or bool, or int64."""
        if self.threshold is not None and self.scores is not None:
            above: np.ndarray = as_scores(outputs[self.scores])[:, -1] >= self.threshold
            return above
        if self.label is not None:
            return outputs[self.label].reshape(-1)
        assert self.scores is not None
        best: np.ndarray = as_scores(outputs[self.scores]).argmax(axis=1)
        return best

    def probabilities(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Class probabilities, float64 [rows, classes]; None where the scores are none."""
        if self.scores is None or self.kind == "scores":
            return None
        scores = as_scores(outputs[self.scores]).astype(np.float64)
        if self.kind == "log-probabilities":
            return np.exp(scores)
        return np.concatenate((1 - scores, scores), axis=1) if scores.shape[1] == 1 else scores

    def margin(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """How clear each decision is, in units of probability, float64 [rows]: the best class minus the second.

        Scores that are no probabilities go through a softmax. With a threshold t it is 2 |p - t|.
        """
        if self.scores is None:
            return None
        if self.threshold is not None:
            margin: np.ndarray = 2 * np.abs(as_scores(outputs[self.scores])[:, -1].astype(np.float64) - self.threshold)
            return margin
        probabilities = self.probabilities(outputs)
        if probabilities is None:
            probabilities = _softmax(as_scores(outputs[self.scores]).astype(np.float64))
        best = np.partition(probabilities, -2, axis=1)
        return best[:, -1] - best[:, -2]


def choose(
    outputs: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    threshold: float | None = None,
    classifier: bool = False,
) -> Decider:
    """Find the decision, and the scores behind it, among the outputs of some samples of the reference model.

    Class scores are rows of two or more floats, along the last axis, that are probabilities or their logarithms; or,
    if nothing tells it better, any that the labels index, that are called logits, or that stand beside a label
    output. A label output is text, whole numbers or truth values, one a sample or one a row of scores.

    Args:
        outputs: arrays by name, samples along axis 0.
        labels: of these samples, or None.
        threshold: on the probability of class 1.
        classifier: the user said that the model decides: take any floats as scores.
    """
    found = _decider(outputs, labels, threshold, classifier=classifier)
    return replace(found, binary=_binary(outputs, labels, found.scores))


def as_scores(array: np.ndarray) -> np.ndarray:
    """Scores as rows [rows, classes]: along the last axis, but for trailing axes of size 1.

    [n, k] and [n, k, 1, 1] are n rows, [n, positions, k] are n times as many as there are positions; [n] and [n, 1]
    are n rows of a single score.
    """
    shape = array.shape
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return array.reshape(-1, shape[-1] if len(shape) > 1 else 1)


def _decider(
    outputs: Mapping[str, np.ndarray], labels: np.ndarray | None, threshold: float | None, *, classifier: bool
) -> Decider:
    scored = {name: as_scores(array) for name, array in outputs.items() if array.dtype.kind == "f" and array.size}
    label = _label(outputs, labels)
    if threshold is not None:
        binary = {name: scores for name, scores in scored.items() if scores.shape[1] <= 2}
        for name, scores in binary.items():
            if _probabilities(scores):
                return Decider(label, name, "probabilities", threshold)
        if binary:
            return Decider(label, next(iter(binary)), "scores", threshold)
    wide = {name: scores for name, scores in scored.items() if scores.shape[1] >= 2}
    if label is not None:
        wide = {name: scores for name, scores in wide.items() if len(scores) == outputs[label].size}
    for name, scores in wide.items():
        if _probabilities(scores):
            return Decider(label, name, "probabilities")
    for name, scores in wide.items():
        if _probabilities(np.exp(np.minimum(scores, 1.0))):
            return Decider(label, name, "log-probabilities")
    for name, scores in wide.items():
        if classifier or label is not None or "logit" in name.lower() or _indexes(labels, scores.shape[1]):
            return Decider(label, name)
    return Decider(label)


def _binary(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None, scores: str | None) -> str | None:
    if labels is None or not _indexes(labels, 2):
        return None
    if scores is not None:
        rows = as_scores(outputs[scores])
        return scores if rows.shape[1] <= 2 and len(rows) == labels.size else None
    single = (name for name, array in outputs.items() if array.dtype.kind == "f" and array.size == len(array) > 0)
    return next((name for name in single if _probabilities(as_scores(outputs[name]))), None)


def _label(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> str | None:
    """One decision a sample, or one a row of probabilities; of several the one that is called so."""
    sizes = {len(next(iter(outputs.values())))}
    for array in outputs.values():
        if array.dtype.kind == "f" and array.size and _probabilities(as_scores(array)):
            sizes.add(len(as_scores(array)))
    if labels is not None:
        sizes.add(labels.size)
    found = [name for name, array in outputs.items() if array.dtype.kind in "iuUOSb" and array.size in sizes]
    return next((name for name in found if "label" in name.lower()), next(iter(found), None))


def _probabilities(scores: np.ndarray) -> bool:
    finite = scores[np.isfinite(scores).all(axis=1)].astype(np.float64)
    if not finite.size or finite.min() < -1e-6 or finite.max() > 1 + 1e-6:
        return False
    return scores.shape[1] == 1 or bool(np.abs(finite.sum(axis=1) - 1).max() < 1e-3)


def _indexes(labels: np.ndarray | None, classes: int) -> bool:
    if labels is None or not labels.size or labels.dtype.kind not in "iuf":
        return False
    whole = bool(np.all(np.mod(labels, 1) == 0))
    return whole and float(labels.min()) >= 0 and float(labels.max()) < classes


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    softmax: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return softmax


@dataclass
class Flips:
    """Decisions that change. `flips` leaves out the ties, which are counted apart."""

    count: int = 0
    flips: int = 0
    ties: int = 0
    confident: int = 0
    margins_known: bool = True
    first: list[int] = field(default_factory=list)

    def update(
        self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray, margin: np.ndarray | None
    ) -> None:
        """Add decisions [n] of both, and the margins of the reference's, float64 [n], or None."""
        changed = reference != candidate
        self.count += len(reference)
        if margin is None:
            self.margins_known = False
            tie = np.zeros(len(reference), dtype=bool)
        else:
            tie = margin < TIE
            self.confident += int(np.count_nonzero(changed & (margin >= CONFIDENT)))
        self.ties += int(np.count_nonzero(changed & tie))
        self.flips += int(np.count_nonzero(changed & ~tie))
        self._keep(indices[changed & ~tie].tolist())

    def merge(self, other: "Flips") -> None:
        self.count += other.count
        self.flips += other.flips
        self.ties += other.ties
        self.confident += other.confident
        self.margins_known &= other.margins_known
        self._keep(other.first)

    @property
    def agreement(self) -> float | None:
        """The share of samples with the same decision."""
        return 1 - (self.flips + self.ties) / self.count if self.count else None

    @property
    def rate_high95(self) -> float | None:
        """The exact one-sided 95 % upper bound of the flip rate (Clopper and Pearson, Biometrika 1934)."""
        return upper_bound(self.flips, self.count)

    def _keep(self, samples: list[int]) -> None:
        self.first = sorted([*self.first, *samples])[:SHOWN]


def upper_bound(hits: int, count: int) -> float | None:
    """The largest rate at which `hits` or fewer of `count` happen in 5 % of cases; None for no samples.

    It is the 95 % quantile of Beta(hits + 1, count - hits); for no hits 1 - 0.05^(1/count), about 3/count.
    """
    if count == 0:
        return None
    if hits == count:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(hits + 1, count - hits, 0.95))


def needed(rate: float) -> int:
    """How many samples without one flip it takes to bound the flip rate by `rate`, with 95 % confidence."""
    return int(np.ceil(np.log(0.05) / np.log1p(-rate)))


@dataclass
class TopFive:
    """The share of samples whose best class of the reference is among the candidate's five best."""

    count: int = 0
    hits: int = 0

    def update(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add scores [n, classes]; five classes or fewer count nothing."""
        if reference.shape[1] <= TOP:
            return
        best = reference.argmax(axis=1)
        value = candidate[np.arange(len(best)), best][:, None]
        self.count += len(best)
        self.hits += int(np.count_nonzero(np.count_nonzero(candidate > value, axis=1) < TOP))

    def merge(self, other: "TopFive") -> None:
        self.count += other.count
        self.hits += other.hits

    @property
    def agreement(self) -> float | None:
        return self.hits / self.count if self.count else None
