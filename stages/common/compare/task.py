"""What the labels say: accuracy, R2 and mean error, or AUC of both models, and whether the change is beyond chance."""

import math
from dataclasses import dataclass, field

import numpy as np

from stages.common.compare.ranks import ranks
from stages.common.compare.sample import BottomK

RESAMPLES = 1000
BINS = 1 << 16


@dataclass
class Accuracy:
    """Right and wrong decisions of both models: the four cells of McNemar's table."""

    both_right: int = 0
    only_reference: int = 0
    only_candidate: int = 0
    both_wrong: int = 0

    def update(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add whether each decision was right, bool [n]."""
        self.both_right += int(np.count_nonzero(reference & candidate))
        self.only_reference += int(np.count_nonzero(reference & ~candidate))
        self.only_candidate += int(np.count_nonzero(~reference & candidate))
        self.both_wrong += int(np.count_nonzero(~reference & ~candidate))

    def merge(self, other: "Accuracy") -> None:
        self.both_right += other.both_right
        self.only_reference += other.only_reference
        self.only_candidate += other.only_candidate
        self.both_wrong += other.both_wrong

    @property
    def count(self) -> int:
        return self.both_right + self.only_reference + self.only_candidate + self.both_wrong

    @property
    def reference(self) -> float | None:
        return (self.both_right + self.only_reference) / self.count if self.count else None

    @property
    def candidate(self) -> float | None:
        return (self.both_right + self.only_candidate) / self.count if self.count else None

    @property
    def p_value(self) -> float | None:
        """McNemar's exact test, two-sided: the chance of so uneven a split where both models are equally good."""
        changed = self.only_reference + self.only_candidate
        if not self.count:
            return None
        if not changed:
            return 1.0
        from scipy.special import bdtr

        return min(1.0, 2 * float(bdtr(min(self.only_reference, self.only_candidate), changed, 0.5)))


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
        """Add float64 [n, columns]; rows that are not finite are left out."""
        finite = np.isfinite(np.concatenate((labels, reference, candidate), axis=1)).all(axis=1)
        labels, reference, candidate = labels[finite], reference[finite], candidate[finite]
        if not len(labels):
            return
        mean = labels.mean(axis=0)
        errors = np.stack((reference - labels, candidate - labels))
        self._add(
            len(labels),
            mean,
            np.square(labels - mean).sum(axis=0),
            np.square(errors).sum(axis=1),
            np.abs(errors).sum(axis=1),
        )
        self.sample.update(indices[finite], labels, reference, candidate)

    def merge(self, other: "Regression") -> None:
        if other.count:
            self._add(other.count, other.mean, other.spread, other.squares, other.absolutes)
            self.sample.merge(other.sample)

    def r2(self, side: int) -> float | None:
        """1 - sum of squared errors / sum of squared distances from the mean; side 0 is the reference."""
        if not self.count or not np.all(self.spread > 0):
            return None
        return float((1 - self.squares[side] / self.spread).mean())

    def mean_absolute(self, side: int) -> float | None:
        return float(self.absolutes[side].mean() / self.count) if self.count else None

    def change95(self) -> tuple[float, float] | None:
        """A 95 % interval of the change of R2: paired percentile bootstrap over the sample that was kept."""
        if self.sample.values is None or len(self.sample.values) < 2 or len(self.mean) != 1:
            return None
        labels, reference, candidate = self.sample.values.T
        picks = _resampled(len(labels))
        drawn = labels[picks]
        spread = np.square(drawn - drawn.mean(axis=1, keepdims=True)).sum(axis=1)
        gained = np.square(reference[picks] - drawn).sum(axis=1) - np.square(candidate[picks] - drawn).sum(axis=1)
        return _interval(gained[spread > 0] / spread[spread > 0])

    def _add(
        self, count: int, mean: np.ndarray, spread: np.ndarray, squares: np.ndarray, absolutes: np.ndarray
    ) -> None:
        if not self.count:
            self.count, self.mean, self.spread = count, mean.copy(), spread.copy()
            self.squares, self.absolutes = squares.copy(), absolutes.copy()
            return
        # Chan, Golub and LeVeque (1979): means and spreads of two parts.
        total = self.count + count
        apart = mean - self.mean
        self.spread += spread + np.square(apart) * self.count * count / total
        self.mean += apart * count / total
        self.squares += squares
        self.absolutes += absolutes
        self.count = total


@dataclass
class Auc:
    """Area under the ROC curve of both models on binary labels, from histograms of 65536 bins.

    Scores are squashed by x / (1 + |x|), which keeps their order. Two scores in one bin count as tied.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, 2, BINS), dtype=np.int64))
    sample: BottomK = field(default_factory=BottomK)

    def update(self, indices: np.ndarray, positive: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add scores, float64 [n], and whether each sample is positive, bool [n]."""
        finite = np.isfinite(reference) & np.isfinite(candidate)
        positive, indices = positive[finite], indices[finite]
        scores = [each[finite] for each in (reference, candidate)]
        for side, each in enumerate(scores):
            squashed = (each / (1 + np.abs(each)) + 1) / 2
            bins = np.minimum((squashed * BINS).astype(np.int64), BINS - 1)
            for truth in (0, 1):
                self.counts[side, truth] += np.bincount(bins[positive == bool(truth)], minlength=BINS)
        if len(positive):
            self.sample.update(indices, positive[:, None], scores[0][:, None], scores[1][:, None])

    def merge(self, other: "Auc") -> None:
        self.counts += other.counts
        self.sample.merge(other.sample)

    def area(self, side: int) -> float | None:
        """The chance that a positive sample scores above a negative one, ties counting half; side 0: the reference."""
        negatives, positives = self.counts[side]
        pairs = int(negatives.sum()) * int(positives.sum())
        if not pairs:
            return None
        below = np.cumsum(negatives) - negatives
        return float((positives * (below + negatives / 2)).sum() / pairs)

    def change95(self) -> tuple[float, float] | None:
        """A 95 % interval of the change: paired percentile bootstrap over the sample that was kept."""
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


def _area(positive: np.ndarray, scores: np.ndarray) -> float:
    ones = positive.sum()
    zeros = len(positive) - ones
    if not ones or not zeros:
        return math.nan
    return float((ranks(scores)[positive > 0].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _resampled(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, count, size=(RESAMPLES, count))


def _interval(changes: np.ndarray) -> tuple[float, float] | None:
    if not len(changes):
        return None
    low, high = np.quantile(changes, (0.025, 0.975))
    return float(low), float(high)
