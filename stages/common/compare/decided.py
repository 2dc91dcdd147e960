"""The decisions of two models: how many change, what that number proves, and how well calibrated they are."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.common.decisions import Decided

CONFIDENT = 0.1
"""A flip with at least this margin is confident: healthy INT8 models have none."""

TOP = 5
SHOWN = 20
BINS = 15

_FLOOR = 1e-12
_SUMS = (
    "count",
    "samples",
    "flips",
    "ties",
    "confident",
    "ranked",
    "ranked_top",
    "divergences",
    "divergence",
    "calibration",
)


@dataclass
class DecisionComparison:
    """Decisions of two models over all `samples` seen: `count` in all, one for each sample or for each position in it.

    Attributes:
        flips: decisions that change; `confident` of them have a margin of at least `CONFIDENT`; `first` lists samples.
        ties: changes where the reference itself cannot tell.
        ranked: samples of more than `TOP` classes; `ranked_top` counts those whose best class in the reference is among
            the candidate's five best.
        divergence: sum over `divergences` rows of the Kullback-Leibler divergence of the candidate's class
            probabilities from the reference's, in nats.
        calibration: for both models, in `BINS` equal bins of confidence: samples, right ones, and the sum of their
            confidence; float64 [2, 3, BINS].
    """

    count: int = 0
    samples: int = 0
    flips: int = 0
    ties: int = 0
    confident: int = 0
    margins_known: bool = True
    first: list[int] = field(default_factory=list)
    ranked: int = 0
    ranked_top: int = 0
    divergences: int = 0
    divergence: float = 0.0
    calibration: np.ndarray = field(default_factory=lambda: np.zeros((2, 3, BINS)))

    def update(
        self, indices: np.ndarray, reference: Decided, candidate: Decided, labels: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Add the decisions of n samples.

        Returns:
            For both models, whether each decision was right, bool [rows]; None if that is unknown.
        """
        before, after = reference.decisions, candidate.decisions
        changed, margins = before != after, reference.margins
        self.count += len(before)
        self.samples += len(indices)
        self.margins_known &= margins is not None
        flipped = reference.flips(candidate)
        self.flips += int(np.count_nonzero(flipped))
        self.ties += int(np.count_nonzero(changed & ~flipped))
        if margins is not None:
            self.confident += int(np.count_nonzero(changed & (margins >= CONFIDENT)))
        rows = np.repeat(indices, len(before) // max(1, len(indices)))
        self.first = sorted([*self.first, *rows[flipped].tolist()])[:SHOWN]
        if reference.scores is not None and candidate.scores is not None and reference.scores.shape[1] > TOP:
            best = reference.scores.argmax(axis=1)
            value = candidate.scores[np.arange(len(best)), best][:, None]
            self.ranked += len(best)
            self.ranked_top += int(np.count_nonzero(np.count_nonzero(candidate.scores > value, axis=1) < TOP))
        p, q = reference.probabilities, candidate.probabilities
        if p is not None and q is not None:
            self._add_divergence(p, q)
        right = [None if labels is None else matches(side, labels) for side in (before, after)]
        if right[0] is None or right[1] is None:
            return None
        if p is not None and q is not None:
            self.calibration += np.stack([_calibration(p, right[0]), _calibration(q, right[1])])
        return right[0], right[1]

    def merge(self, other: "DecisionComparison") -> None:
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.margins_known &= other.margins_known
        self.first = sorted([*self.first, *other.first])[:SHOWN]

    def figures(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The groups `decisions` and `probabilities` of the details, not rounded; a figure without samples is None."""
        known = self.count > 0
        margins = known and self.margins_known
        counts = self.calibration[:, 0].sum(axis=1)
        errors = np.abs(self.calibration[:, 1] - self.calibration[:, 2]).sum(axis=1)
        ece = [float(error / count) if count else None for error, count in zip(errors, counts, strict=True)]
        decisions = {
            "count": self.count,
            "flips": self.flips if known else None,
            "first_flip": self.first[0] if self.first else None,
            "confident_flips": self.confident if margins else None,
            "tie_flips": self.ties if margins else None,
            "agreement": 1 - (self.flips + self.ties) / self.count if known else None,
            "flip_rate_high95": rate_bound(self.flips, self.count, self.samples),
            "top5_agreement": self.ranked_top / self.ranked if self.ranked else None,
        }
        mean = self.divergence / self.divergences if self.divergences else None
        return decisions, {"kl_mean": mean, "ece_fp32": ece[0], "ece_int8": ece[1]}

    def _add_divergence(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Zeros count as 1e-12; rows that are not finite are ignored."""
        finite = np.isfinite(reference).all(axis=1) & np.isfinite(candidate).all(axis=1)
        p, q = (np.clip(side[finite], _FLOOR, None) for side in (reference, candidate))
        self.divergences += len(p)
        self.divergence += float(np.maximum((p * np.log(p / q)).sum(axis=1), 0.0).sum())


def matches(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Which decisions equal their labels, bool [rows]; None if they cannot be compared, such as text with numbers.

    A bool decision is class 1 or class 0.
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


def _calibration(probabilities: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Per bin of confidence: samples, right ones, and the sum of their confidence; float64 [3, BINS].

    The expected calibration error (ECE) is the sum over bins of |right - confidence|, divided by all samples (Guo et
    al., ICML 2017).
    """
    finite = np.isfinite(probabilities).all(axis=1)
    confidence = probabilities[finite].max(axis=1, initial=0.0)
    bins = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
    weights = np.ones(len(bins)), right[finite].astype(np.float64), confidence
    return np.stack([np.bincount(bins, weights=weight, minlength=BINS) for weight in weights])


def rate_bound(hits: int, count: int, samples: int) -> float | None:
    """The `upper_bound` of a rate with `hits` in `count` values, which belong to `samples` samples.

    The pixels of an image are right or wrong together: only samples are independent. So each sample counts as one
    value, by the share of its hits.
    """
    independent = min(count, samples)
    return upper_bound(hits * independent / count, independent) if count else None


def upper_bound(hits: float, count: int) -> float | None:
    """The one-sided 95 % upper bound of a rate with `hits` in `count` samples (Clopper-Pearson); None without samples.

    The 95 % quantile of Beta(hits + 1, count - hits); without hits 1 - 0.05^(1/count), about 3/count.
    """
    if count == 0:
        return None
    if hits == count:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(hits + 1, count - hits, 0.95))


def needed(rate: float) -> int:
    """How many samples without a hit prove, with 95 % confidence, that a rate is at most `rate`."""
    return int(np.ceil(np.log(0.05) / np.log1p(-rate)))
