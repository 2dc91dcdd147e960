"""How much larger the largest difference is expected to be over three times as many samples, as parity judges."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from stages.common.compare.comparison import OutputPair
from stages.common.decisions import as_scores, probability_axes

TIMES = 3
"""How many times as many judge samples as search samples there are."""

FEWEST = 9
"""With fewer samples, the growth is not estimated from parts."""

CERTAIN = 1e-6
"""The log-odds of a probability this close to 0 or 1 are mostly rounding error."""

NOISY, NOISIEST = 0.9, 0.95
"""The quantile of the noise to expect for a sample near a decision boundary; stronger noise rarely hits one. It rises
from 0.9 to 0.95 as 1 - 0.4 / sqrt(rows), because at 0.9 more search samples let more models pass that parity fails."""


def tail_factor(largest: np.ndarray, times: int = TIMES) -> float:
    """The factor by which the largest difference is expected to grow with `times` as many samples.

    The samples are split into three parts; the growth of the maximum from a part to the whole is extrapolated as a
    power of the number of samples. It is far above 1 if a few outliers dominate. 1 / sqrt(samples) is added because few
    samples say little about the tail.

    Args:
        largest: the largest difference of each sample, float64 [samples].
        times: how many times as many samples.

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
    """How far the log-odds of the most likely class move, for each row where it is not certain.

    Args:
        reference: fp32 probabilities, [rows, classes].
        candidate: probabilities of the other model, [rows, classes].

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
    """The largest change of a probability that noise of its log-odds can cause: tanh(noise / 4).

    Noise moves probabilities most near a decision boundary, where few samples lie, and the search split may have none.
    The noise itself varies little over samples, so it predicts how far such a sample would move.

    Args:
        noise: noise of the log-odds, float64 [rows]; the result is 0 without rows.
    """
    if not len(noise):
        return 0.0
    quantile = min(NOISIEST, max(NOISY, 1 - 0.4 / math.sqrt(len(noise))))
    return math.tanh(float(np.quantile(noise, quantile)) / 4)


class Tails:
    """Collects the largest difference of each sample by output, and for probabilities the noise of their log-odds.

    Noise predicts how far probabilities move, unless static ranges clip values that calibration has not seen: then the
    growth by outliers counts too, as for other outputs. Half of the search samples calibrate and are never clipped, so
    parity judges six times as many samples that can be.

    Args:
        clips: whether the model has static ranges, which clip.
    """

    def __init__(self, *, clips: bool) -> None:
        self._clips = clips
        self._largest: dict[str, dict[int, np.ndarray]] = {}
        self._noise: dict[str, list[np.ndarray]] = {}
        self._others: set[str] = set()

    def watch(self, pairs: Iterable[OutputPair]) -> Iterator[OutputPair]:
        """Pass pairs on, and collect the largest difference of each sample, by row for outputs of rank above 2."""
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
                if axes := probability_axes(reference):
                    rows = (as_scores(side, axes[0]) for side in (reference, candidate))
                    self._noise.setdefault(name, []).append(log_odds_noise(*rows))
                else:
                    self._others.add(name)
            yield pair

    def factors(self) -> dict[str, float]:
        """The factor by which the largest difference is expected to grow, by output."""
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
