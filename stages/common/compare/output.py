"""One output of two models: all that is measured of it."""

from dataclasses import dataclass, field

import numpy as np

from stages.common.compare.absolute import AbsoluteError
from stages.common.compare.cosine import CosineSimilarity
from stages.common.compare.finite import Finiteness
from stages.common.compare.ranks import ranks
from stages.common.compare.sample import BottomK
from stages.common.compare.signal import SignalNoise
from stages.common.compare.worst import Worst
from stages.common.decisions import as_scores


@dataclass
class OutputComparison:
    """Figures of one output over all samples seen.

    Floats are compared by distance, everything else (whole numbers, truth values, text) by equality.

    Attributes:
        dtype: of the reference's output.
        samples: rows seen.
        values: single values seen.
        equal: how many of them are equal; NaN equals NaN.
        width: values of one sample, None if it varies.
        misshapen: samples for which the two sides have different shapes; they count for nothing else.
        classes: values along the last axis, as `decisions.as_scores` sees it.
        probabilities: all rows of scores of the reference lie in [0, 1] and, where they have several values, sum to 1.
    """

    name: str
    dtype: str
    samples: int = 0
    values: int = 0
    equal: int = 0
    width: int | None = None
    misshapen: int = 0
    misshapen_words: str = ""
    classes: int = 1
    probabilities: bool = True
    finite: Finiteness = field(default_factory=Finiteness)
    error: AbsoluteError = field(default_factory=AbsoluteError)
    signal: SignalNoise = field(default_factory=SignalNoise)
    cosine: CosineSimilarity = field(default_factory=CosineSimilarity)
    pairs: BottomK = field(default_factory=BottomK)
    worst: Worst = field(default_factory=Worst)

    @property
    def is_float(self) -> bool:
        return np.dtype(self.dtype).kind == "f"

    @property
    def equality(self) -> float | None:
        """The share of equal values."""
        return self.equal / self.values if self.values else None

    @property
    def relative_max(self) -> float | None:
        """The largest absolute difference over the width of the reference's range."""
        span = self.signal.span
        return self.error.largest / span if span and self.error.count else None

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's rho between the sampled values of an output with one value a sample; None for other outputs."""
        if self.width != 1 or not self.is_float or self.pairs.values is None or len(self.pairs.values) < 3:
            return None
        reference, candidate = (ranks(column) for column in self.pairs.values.T)
        if np.ptp(reference) == 0 or np.ptp(candidate) == 0:
            return None
        return float(np.corrcoef(reference, candidate)[0, 1])

    def update(self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add samples: arrays [n, ...]."""
        samples = len(reference)
        if reference.shape != candidate.shape:
            self._add_misshapen(samples, f"sample {indices[0]}: {_shape(reference)} against {_shape(candidate)}")
            return
        width = reference.size // samples if samples else 0
        self.width = width if self.samples == 0 or width == self.width else None
        self.samples += samples
        self.values += reference.size
        if not reference.size:
            return
        self.classes = as_scores(reference).shape[1]
        rows = reference.reshape(samples, width), candidate.reshape(samples, width)
        if self.is_float:
            self._update_floats(indices, *(each.astype(np.float64) for each in rows))
        else:
            self._update_exact(indices, *rows)

    def merge(self, other: "OutputComparison") -> None:
        if not self.samples:
            self.width, self.classes = other.width, other.classes
        elif other.samples and self.width != other.width:
            self.width = None
        self.samples += other.samples
        self.values += other.values
        self.equal += other.equal
        self.probabilities &= other.probabilities
        if other.misshapen:
            self._add_misshapen(other.misshapen, other.misshapen_words)
        self.finite.merge(other.finite)
        self.error.merge(other.error)
        self.signal.merge(other.signal)
        self.cosine.merge(other.cosine)
        self.pairs.merge(other.pairs)
        self.worst.merge(other.worst)

    def _add_misshapen(self, samples: int, words: str) -> None:
        self.misshapen += samples
        self.misshapen_words = self.misshapen_words or words

    def _update_exact(self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        differ = reference != candidate
        self.equal += differ.size - int(np.count_nonzero(differ))
        self.probabilities = False
        self.worst.update(indices, differ.astype(np.float64), reference, candidate)

    def _update_floats(self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        both = self.finite.update(indices, reference, candidate)
        difference = candidate - reference
        same = (reference == candidate) | (np.isnan(reference) & np.isnan(candidate))
        self.equal += int(np.count_nonzero(same))
        error = np.abs(difference)
        if both is not None:
            # A mask that differs is an infinite error; what is equally not finite is none.
            self.worst.update(indices, np.where(both, error, np.where(same, 0.0, np.inf)), reference, candidate)
            self.pairs.update(indices, reference, candidate, keep=both)
            rows = both.all(axis=1)
            self.error.update(difference[both])
            self.signal.update(reference[both], difference[both])
            indices, reference, candidate = indices[rows], reference[rows], candidate[rows]
        else:
            self.worst.update(indices, error, reference, candidate)
            self.pairs.update(indices, reference, candidate)
            self.error.update(difference)
            self.signal.update(reference, difference)
        self.cosine.update(indices, reference, candidate)
        if self.probabilities and len(reference):
            bounded = reference.min() >= -1e-6 and reference.max() <= 1 + 1e-6
            scores = reference.reshape(-1, self.classes)
            sums = self.classes == 1 or np.abs(scores.sum(axis=1) - 1).max() < 1e-3
            self.probabilities = bool(bounded and sums)


def _shape(array: np.ndarray) -> str:
    return "[" + ", ".join(str(size) for size in array.shape[1:]) + "]"
