"""The task metric of both models: accuracy, AUC or R2 on labels, and whether its change is beyond chance."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.common.compare.summaries import BottomK, ranks

RESAMPLES = 1000
SIGNIFICANT = 0.05

UNFIT = "the labels do not match any output"
"""The reason for a missing task metric when the evaluation data has labels."""


@dataclass
class Accuracy:
    """Decisions in all, and how many were right in both models or in only one of them.

    `better` and `worse` count the samples of which the candidate had more or fewer decisions right.
    """

    count: int = 0
    both: int = 0
    only_reference: int = 0
    only_candidate: int = 0
    better: int = 0
    worse: int = 0

    def update(self, reference: np.ndarray, candidate: np.ndarray, samples: int) -> None:
        """Add whether each decision was right, bool [rows], with as many rows for each of the samples."""
        self.count += len(reference)
        self.both += int(np.count_nonzero(reference & candidate))
        self.only_reference += int(np.count_nonzero(reference & ~candidate))
        self.only_candidate += int(np.count_nonzero(~reference & candidate))
        gains = candidate.astype(np.int64) - reference
        gains = gains.reshape(samples if samples and len(gains) % samples == 0 else 1, -1).sum(axis=1)
        self.better += int(np.count_nonzero(gains > 0))
        self.worse += int(np.count_nonzero(gains < 0))

    def merge(self, other: "Accuracy") -> None:
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)

    @property
    def p_value(self) -> float:
        """The probability of so uneven a split of the samples if both models are equally good: an exact sign test.

        With one decision per sample this is McNemar's exact two-sided test. The pixels of an image do not count singly,
        as they are right or wrong together.
        """
        changed = self.better + self.worse
        if not changed:
            return 1.0
        from scipy.special import bdtr

        return min(1.0, 2 * float(bdtr(min(self.better, self.worse), changed, 0.5)))

    @property
    def several(self) -> bool:
        """Whether samples hold several decisions, as far as their number shows."""
        return self.better + self.worse < self.only_reference + self.only_candidate


@dataclass
class Regression:
    """R2 and mean absolute error of both models on numeric labels; R2 is the mean over the columns."""

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    spread: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)))
    absolutes: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)))
    sample: BottomK = field(default_factory=BottomK)

    def update(self, indices: np.ndarray, labels: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add float64 [n, columns]; rows that are not finite are ignored."""
        finite = np.isfinite(np.concatenate((labels, reference, candidate), axis=1)).all(axis=1)
        labels, reference, candidate = labels[finite], reference[finite], candidate[finite]
        if not len(labels):
            return
        mean = labels.mean(axis=0)
        errors = np.stack((reference - labels, candidate - labels))
        spread = np.square(labels - mean).sum(axis=0)
        part = Regression(len(labels), mean, spread, np.square(errors).sum(axis=1), np.abs(errors).sum(axis=1))
        part.sample.update(indices[finite], labels, reference, candidate)
        self.merge(part)

    def merge(self, other: "Regression") -> None:
        if not other.count:
            return
        total = self.count + other.count
        if self.count:
            # Means and spreads of two parts: Chan, Golub and LeVeque (1979).
            shift = other.mean - self.mean
            self.spread = self.spread + other.spread + np.square(shift) * self.count * other.count / total
            self.mean = self.mean + shift * other.count / total
            self.squares = self.squares + other.squares
            self.absolutes = self.absolutes + other.absolutes
        else:
            self.mean, self.spread = other.mean, other.spread
            self.squares, self.absolutes = other.squares, other.absolutes
        self.count = total
        self.sample.merge(other.sample)

    def r2(self, side: int) -> float | None:
        """1 - sum of squared errors / sum of squared distances from the mean; side 0 is the reference."""
        if not self.count or not np.all(self.spread > 0):
            return None
        return float((1 - self.squares[side] / self.spread).mean())

    def mean_absolute(self, side: int) -> float | None:
        """Mean absolute error, in the unit of the labels; side 0 is the reference."""
        return float(self.absolutes[side].mean() / self.count) if self.count else None

    def change95(self) -> tuple[float, float] | None:
        """A 95 % interval of the change of R2: paired percentile bootstrap over the kept sample."""
        if self.sample.values is None or len(self.sample.values) < 2 or len(self.mean) != 1:
            return None
        labels, reference, candidate = self.sample.values.T
        picks = _resampled(len(labels))
        drawn = labels[picks]
        spread = np.square(drawn - drawn.mean(axis=1, keepdims=True)).sum(axis=1)
        gained = np.square(reference[picks] - drawn).sum(axis=1) - np.square(candidate[picks] - drawn).sum(axis=1)
        return _interval(gained[spread > 0] / spread[spread > 0])


@dataclass
class Auc:
    """Area under the ROC curve of both models on binary labels. Keeps every score: 17 bytes per sample."""

    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    sample: BottomK = field(default_factory=BottomK)

    def update(self, indices: np.ndarray, positive: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add scores, float64 [n], and whether each sample is positive, bool [n]."""
        finite = np.isfinite(reference) & np.isfinite(candidate)
        if not finite.any():
            return
        positive, reference, candidate = positive[finite], reference[finite], candidate[finite]
        self.parts.append((positive, reference, candidate))
        self.sample.update(indices[finite], positive[:, None], reference[:, None], candidate[:, None])

    def merge(self, other: "Auc") -> None:
        self.parts += other.parts
        self.sample.merge(other.sample)

    def area(self, side: int) -> float | None:
        """The chance that a positive sample scores above a negative one (a tie is half); side 0 is the reference."""
        if not self.parts:
            return None
        positive, *scores = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        area = _area(positive, scores[side])
        return None if math.isnan(area) else area

    def change95(self) -> tuple[float, float] | None:
        """A 95 % interval of the change: paired percentile bootstrap over the kept sample."""
        if self.sample.values is None or len(self.sample.values) < 2:
            return None
        positive, reference, candidate = self.sample.values.T
        changes = [
            after - before
            for picks in _resampled(len(positive))
            if not math.isnan(before := _area(positive[picks], reference[picks]))
            and not math.isnan(after := _area(positive[picks], candidate[picks]))
        ]
        return _interval(np.array(changes))


def task_figures(accuracy: Accuracy, auc: Auc, regression: Regression, *, labelled: bool = False) -> dict[str, Any]:
    """Accuracy if decisions can be compared with labels, else AUC of binary scores, else R2 of numbers.

    `labelled` says whether there are labels at all.

    Returns:
        `metric` (accuracy, auc, r2 or none), its value for `fp32` and `int8`, related figures, the significance of the
        change in words (`chance`), and the `reason` why there is none. Not rounded.
    """
    metric, chance, reason = "none", "", ""
    interval: tuple[float, float] | None = None
    more: dict[str, float | None] = {}
    areas = before, after = auc.area(0), auc.area(1)
    if accuracy.count:
        right = (accuracy.both + accuracy.only_reference, accuracy.both + accuracy.only_candidate)
        metric, before, after = "accuracy", right[0] / accuracy.count, right[1] / accuracy.count
        p = accuracy.p_value
        by_sample = f", by sample {accuracy.worse} worse and {accuracy.better} better" if accuracy.several else ""
        chance = (
            f"{accuracy.only_reference} right in fp32 only, {accuracy.only_candidate} in int8 only{by_sample}: "
            f"{_beyond(p < SIGNIFICANT)} ({'sign test' if accuracy.several else 'McNemar'} p = {p:.2g})"
        )
        more = {"mcnemar_p": p}
        if areas[0] is not None:
            more |= {"auc_fp32": areas[0], "auc_int8": areas[1]}
    elif before is not None:
        metric, interval = "auc", auc.change95()
    elif (before := regression.r2(0)) is not None:
        metric, after, interval = "r2", regression.r2(1), regression.change95()
        more = {"mae_fp32": regression.mean_absolute(0), "mae_int8": regression.mean_absolute(1)}
    elif not labelled:
        reason = "the evaluation data has no labels"
    else:
        reason = "the labels of all samples are equal" if auc.parts or regression.count else UNFIT
    tree: dict[str, Any] = {"metric": metric, "fp32": before, "int8": after}
    if before is not None and after is not None:
        tree["change"] = after - before
    if interval is not None:
        low, high = tree["change_low95"], tree["change_high95"] = interval
        chance = f"{_beyond(low > 0 or high < 0)} (95 % interval of the change {low:+.2g} to {high:+.2g})"
    return {**tree, **more, "chance": chance, "reason": reason}


def _area(positive: np.ndarray, scores: np.ndarray) -> float:
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return math.nan
    return float((ranks(scores)[positive > 0].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _resampled(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, count, size=(RESAMPLES, count))


def _interval(changes: np.ndarray) -> tuple[float, float] | None:
    changes = changes[np.isfinite(changes)]
    if not len(changes):
        return None
    low, high = np.quantile(changes, (0.025, 0.975))
    return float(low), float(high)


def _beyond(beyond: bool) -> str:
    return "beyond chance" if beyond else "within chance"
