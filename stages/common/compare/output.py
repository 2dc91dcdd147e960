"""One output of two models: everything that is measured of it."""

from dataclasses import dataclass, field

import numpy as np

from stages.common.compare.absolute import AbsoluteDifference
from stages.common.compare.cosine import CosineSimilarity
from stages.common.compare.finite import Finiteness
from stages.common.compare.sample import BottomK
from stages.common.compare.signal import SignalNoise
from stages.common.compare.task import ranks
from stages.common.compare.worst import Worst
from stages.common.decisions import are_log_probabilities, are_probabilities, as_scores

_EXACT_KINDS = {"b": "bool", "i": "integer", "u": "integer"}


@dataclass
class OutputComparison:
    """Figures of one output over all samples seen.

    Floats are compared by distance, everything else (integers, booleans, text) by equality.

    Attributes:
        dtype: of the reference's output.
        samples: rows seen.
        values: single values seen.
        equal: how many of them are equal; NaN equals NaN.
        width: values of one sample, None if it varies.
        mismatched: samples whose output has another shape on each side; they count for nothing else.
        mismatch: an example of them.
        classes: values along the last axis, as `decisions.as_scores` sees it.
        probabilities: whether all rows of the reference, as far as they are finite, are probabilities.
        log_probabilities: whether they are logarithms of probabilities.
    """

    name: str
    dtype: str
    samples: int = 0
    values: int = 0
    equal: int = 0
    width: int | None = None
    mismatched: int = 0
    mismatch: str = ""
    classes: int = 1
    probabilities: bool = True
    log_probabilities: bool = True
    finite: Finiteness = field(default_factory=Finiteness)
    absolute: AbsoluteDifference = field(default_factory=AbsoluteDifference)
    signal: SignalNoise = field(default_factory=SignalNoise)
    cosine: CosineSimilarity = field(default_factory=CosineSimilarity)
    pairs: BottomK = field(default_factory=BottomK)
    worst: Worst = field(default_factory=Worst)

    @property
    def is_float(self) -> bool:
        """Whether it is compared by distance."""
        return np.dtype(self.dtype).kind == "f"

    @property
    def kind(self) -> str:
        """What it holds: probabilities, log-probabilities, float, integer, bool, text, or empty."""
        if not self.values:
            return "empty"
        if not self.is_float:
            return _EXACT_KINDS.get(np.dtype(self.dtype).kind, "text")
        if self.probabilities:
            return "probabilities"
        return "log-probabilities" if self.log_probabilities else "float"

    @property
    def equality(self) -> float | None:
        """The share of equal values."""
        return self.equal / self.values if self.values else None

    @property
    def relative_max(self) -> float | None:
        """The largest absolute difference over the width of the reference's range."""
        span = self.signal.span
        return self.absolute.largest / span if span and self.absolute.count else None

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's rho between the sampled values of an output with one value per sample; None for other outputs."""
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
            example = f"sample {indices[0]}: {_shape(reference)} in fp32, {_shape(candidate)} in int8"
            self._add_mismatched(samples, example)
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
            self._update_floats(indices, *(side.astype(np.float64) for side in rows))
        else:
            self._update_exact(indices, *rows)

    def merge(self, other: "OutputComparison") -> None:
        """Add what was seen of other samples."""
        if not self.samples:
            self.width, self.classes = other.width, other.classes
        elif other.samples and self.width != other.width:
            self.width = None
        self.samples += other.samples
        self.values += other.values
        self.equal += other.equal
        self.probabilities &= other.probabilities
        self.log_probabilities &= other.log_probabilities
        if other.mismatched:
            self._add_mismatched(other.mismatched, other.mismatch)
        self.finite.merge(other.finite)
        self.absolute.merge(other.absolute)
        self.signal.merge(other.signal)
        self.cosine.merge(other.cosine)
        self.pairs.merge(other.pairs)
        self.worst.merge(other.worst)

    def _add_mismatched(self, samples: int, example: str) -> None:
        self.mismatched += samples
        self.mismatch = self.mismatch or example

    def _update_exact(self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        differ = reference != candidate
        self.equal += differ.size - int(np.count_nonzero(differ))
        self.worst.update(indices, differ.astype(np.float64), reference, candidate)

    def _update_floats(self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        both = self.finite.update(indices, reference, candidate)
        difference = candidate - reference
        same = (reference == candidate) | (np.isnan(reference) & np.isnan(candidate))
        self.equal += int(np.count_nonzero(same))
        distance = np.abs(difference)
        if both is not None:
            # NaN or infinity on one side only is an infinite distance; on both sides alike it is none.
            self.worst.update(indices, np.where(both, distance, np.where(same, 0.0, np.inf)), reference, candidate)
            self.pairs.update(indices, reference, candidate, keep=both)
            rows = both.all(axis=1)
            self.absolute.update(difference[both])
            self.signal.update(reference[both], difference[both])
            indices, reference, candidate = indices[rows], reference[rows], candidate[rows]
        else:
            self.worst.update(indices, distance, reference, candidate)
            self.pairs.update(indices, reference, candidate)
            self.absolute.update(difference)
            self.signal.update(reference, difference)
        self.cosine.update(indices, reference, candidate)
        if len(reference):
            scores = reference.reshape(-1, self.classes)
            self.probabilities = self.probabilities and are_probabilities(scores)
            self.log_probabilities = self.log_probabilities and are_log_probabilities(scores)


def _shape(array: np.ndarray) -> str:
    return "[" + ", ".join(str(size) for size in array.shape[1:]) + "]"
