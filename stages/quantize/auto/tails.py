"""How the largest difference grows from the search samples to three times as many, as parity judges."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from stages.common.compare.comparison import OutputPair
from stages.common.decisions import are_probabilities, as_scores

TIMES = 3
"""The samples of parity over those of the search."""

FEWEST = 9
"""Samples below which they are not dealt into parts."""

CERTAIN = 1e-6
"""A probability this close to 0 or 1 has log-odds that are mostly rounding."""

NOISY = 0.9
"""The quantile of the noise to expect at a sample on the edge of a decision; stronger noise rarely meets one."""


def tail_factor(largest: np.ndarray, times: int = TIMES) -> float:
    """By how much the largest difference is expected to grow if there were `times` as many samples.

    The samples are dealt into three parts: from a part to the whole their number grows threefold. Where a few samples
    make all of the difference, as outliers do, this is far above 1. The growth is extrapolated as a power of the number
    of samples. With few samples the tail is not well known, and 1 / sqrt(samples) is added for that.

    Args:
        largest: the largest difference of each sample, float64 [samples].
        times: the growth of the number of samples.

    Returns:
        Above 1.
    """
    finite = largest[np.isfinite(largest)]
    unknown = 1 + 1 / math.sqrt(max(1, len(finite)))
    if len(finite) < FEWEST or not finite.max(initial=0.0):
        return unknown
    parts = [finite[start::3].max() for start in range(3)]
    return float(unknown * (finite.max() / np.mean(parts)) ** math.log(times, len(parts)))


def log_odds_noise(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """How far the log-odds of the most likely class move, for each row that is not certain of it.

    Args:
        reference: probabilities, [rows, classes].
        candidate: the same of the other model.

    Returns:
        float64 [uncertain rows].
    """
    top = reference.argmax(axis=1)[:, None]
    before, after = (
        np.take_along_axis(scores, top, axis=1)[:, 0].astype(np.float64) for scores in (reference, candidate)
    )
    uncertain = (before > CERTAIN) & (before < 1 - CERTAIN) & np.isfinite(after)
    before, after = before[uncertain], np.clip(after[uncertain], CERTAIN, 1 - CERTAIN)
    return np.asarray(np.abs(np.log(after / (1 - after)) - np.log(before / (1 - before))))


def largest_move(noise: np.ndarray) -> float:
    """The largest change that noise of its log-odds can make to a probability, over all probabilities: tanh(noise / 4).

    Few samples lie on the edge of a decision, where noise moves probabilities most, and the search split may have none
    of them. The noise varies little over samples, so it predicts what such a sample would do.

    Args:
        noise: of the log-odds, float64 [rows]; without rows the result is zero.
    """
    return math.tanh(float(np.quantile(noise, NOISY)) / 4) if len(noise) else 0.0


class Tails:
    """The largest difference of each sample by output, and for probabilities the noise of their log-odds.

    Noise explains how far probabilities move, unless static ranges clip what calibration has not seen: then outliers
    count as they do for other outputs. Half of the search samples calibrate and cannot be clipped, so parity judges six
    times as many samples as those that can.

    Args:
        clips: whether the model has static ranges.
    """

    def __init__(self, *, clips: bool) -> None:
        self._clips = clips
        self._largest: dict[str, dict[int, np.ndarray]] = {}
        self._noise: dict[str, list[np.ndarray]] = {}
        self._others: set[str] = set()

    def watch(self, pairs: Iterable[OutputPair]) -> Iterator[OutputPair]:
        """Pass pairs on, and keep the largest difference of each sample, or of each row of a whole feed."""
        for pair in pairs:
            for name, reference in pair.reference.items():
                candidate = pair.candidate[name]
                if reference.dtype.kind != "f" or reference.shape != candidate.shape or not reference.size:
                    continue
                with np.errstate(invalid="ignore", over="ignore"):
                    moved = np.abs(reference.astype(np.float64) - candidate)
                rows = moved.shape[1] if moved.ndim > 2 else 1
                known = self._largest.setdefault(name, {})
                for sample, distance in zip(pair.indices.tolist(), moved.reshape(len(moved), rows, -1), strict=True):
                    known[sample] = np.fmax(known.get(sample, 0.0), distance.max(axis=1))
                scores = as_scores(reference)
                if are_probabilities(scores):
                    self._noise.setdefault(name, []).append(log_odds_noise(scores, as_scores(candidate)))
                else:
                    self._others.add(name)
            yield pair

    def factors(self) -> dict[str, float]:
        """By output, how much the largest difference is expected to grow."""
        return {
            name: self._factor(name, np.concatenate([known[sample] for sample in sorted(known)]))
            for name, known in self._largest.items()
            if len({array.shape for array in known.values()}) == 1
        }

    def _factor(self, name: str, largest: np.ndarray) -> float:
        by_outliers = tail_factor(largest, TIMES * (2 if self._clips else 1))
        if name in self._others or not (seen := float(np.fmax.reduce(largest, initial=0.0))):
            return by_outliers
        by_noise = largest_move(np.concatenate(self._noise[name])) / seen
        return max(by_noise, by_outliers if self._clips else 1 + 1 / math.sqrt(len(largest)))
