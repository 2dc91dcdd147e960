"""One output of two models: every statistic of its values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.common.compare.parts import Parts
from stages.common.compare.summaries import BottomK, QuantileSketch, Worst, ranks
from stages.common.decisions import probability_axes
from stages.common.moments import Moments

NONFINITE_KEPT = 20

OVERFLOW = "beyond what float64 holds"
"""The reason for a null figure that nothing else explains."""

_NO_NOISE = "the outputs are identical, so there is no noise"
_NO_SIGNAL = "fp32 is zero everywhere"

QUANTILES = {"p50_abs": 0.5, "p90_abs": 0.9, "p99_abs": 0.99, "p999_abs": 0.999}

_EXACT_KINDS = {"b": "bool", "i": "integer", "u": "integer"}

_SUMS = (
    "samples", "values", "equal", "mismatched", "nonfinite_fp32", "nonfinite_samples",
    "directions", "cosine_total",
)  # fmt: skip


@dataclass
class OutputComparison(Moments):
    """Floats are compared by distance, everything else (integers, booleans, text) by equality.

    Attributes:
        samples: rows seen, with `values` values, of which `equal` are equal; NaN equals NaN.
        width: values per sample, None if it varies.
        mismatched: samples whose shapes differ between the models; they count nowhere else. `mismatch` is an example.
        axes: those along which all finite samples of the reference are probabilities, see `decisions.class_axes`.
        nonfinite_fp32: values of the reference that are NaN or infinite.
        nonfinite_samples: samples where only one model gives NaN or infinity; `nonfinite_first` lists the first.
        distances: quantiles of |candidate - reference| over the values that `Moments` counts.
        directions: samples of two or more values, all finite; `cosine_total` sums their cosine similarities, `cosine`
            is the smallest with its sample.
        parts: the error of each part of the output.
        pairs: a uniform sample of (reference, candidate); `worst` holds the samples that moved most.
    """

    name: str
    dtype: str
    samples: int = 0
    values: int = 0
    equal: int = 0
    width: int | None = None
    mismatched: int = 0
    mismatch: str = ""
    axes: frozenset[int] = frozenset({-1, 1})
    nonfinite_fp32: int = 0
    nonfinite_samples: int = 0
    nonfinite_first: list[int] = field(default_factory=list)
    distances: QuantileSketch = field(default_factory=QuantileSketch)
    directions: int = 0
    cosine_total: float = 0.0
    cosine: tuple[float, int] | None = None
    parts: Parts = field(default_factory=Parts)
    pairs: BottomK = field(default_factory=BottomK)
    worst: Worst = field(default_factory=Worst)

    @property
    def is_float(self) -> bool:
        """Whether the output is compared by distance."""
        return np.dtype(self.dtype).kind == "f"

    @property
    def kind(self) -> str:
        """Probabilities, float, integer, bool, text, or empty."""
        if not self.values:
            return "empty"
        if not self.is_float:
            return _EXACT_KINDS.get(np.dtype(self.dtype).kind, "text")
        return "probabilities" if self.axes else "float"

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's rho of the sampled values, for outputs with one value per sample; else None."""
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
            shapes = [str(list(side.shape[1:])) for side in (reference, candidate)]
            self.mismatched += samples
            self.mismatch = self.mismatch or f"sample {indices[0]}: {shapes[0]} in fp32, {shapes[1]} in int8"
            return
        width = reference.size // samples if samples else 0
        self.width = width if self.samples == 0 or width == self.width else None
        self.samples += samples
        self.values += reference.size
        if not reference.size:
            return
        rows = reference.reshape(samples, width), candidate.reshape(samples, width)
        if self.is_float:
            self._update_floats(indices, *(side.astype(np.float64) for side in rows), shape=reference.shape[1:])
        else:
            differ = rows[0] != rows[1]
            self.equal += differ.size - int(np.count_nonzero(differ))
            self.worst.update(indices, differ.astype(np.float64), *rows)

    def merge(self, other: "OutputComparison") -> None:
        if not self.samples:
            self.width = other.width
        elif other.samples and self.width != other.width:
            self.width = None
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.mismatch = self.mismatch or other.mismatch
        self.axes &= other.axes
        self.nonfinite_first = sorted([*self.nonfinite_first, *other.nonfinite_first])[:NONFINITE_KEPT]
        self.add(other)
        self._lower_cosine(other.cosine)
        self.distances.merge(other.distances)
        self.parts.merge(other.parts)
        self.pairs.merge(other.pairs)
        self.worst.merge(other.worst)

    def figures(self) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The figures of the details, not rounded, and by name the reason why a figure is null."""
        tree: dict[str, Any] = {
            "kind": self.kind,
            "is_float": self.is_float,
            "values": self.values,
            "values_changed": self.values - self.equal,
            "shape_mismatches": self.mismatched,
            "worst_sample": self.worst.samples[0].sample if self.worst.samples else None,
        }
        if self.mismatched:
            tree["shape_mismatch"] = self.mismatch
        if not self.is_float:
            return tree, {}
        some, span = self.compared > 0, self.span
        tree |= {
            "values_compared": self.compared,
            "nonfinite_samples": self.nonfinite_samples,
            "nonfinite_first": self.nonfinite_first,
            "max_abs": self.largest if some else None,
            "mean_abs": self.mean_abs,
            **{key: self.quantile(share) for key, share in QUANTILES.items()},
            "max_of_range": self.largest / span if span else None,
            "nrmse": self.nrmse,
            "parts_axis": self.parts.axis or None,
            "parts_nrmse": self.parts.nrmse,
            "parts_std": self.parts.std,
            "sqnr_db": self.sqnr_db,
            "min_cosine": self.cosine[0] if self.cosine else None,
            "min_cosine_sample": self.cosine[1] if self.cosine else None,
            "mean_cosine": self.cosine_total / self.directions if self.directions else None,
            "rank_correlation": self.rank_correlation,
            "low": self.low if some else None,
            "high": self.high if some else None,
        }
        if not some:
            return tree, dict.fromkeys(tree, "no value is finite in both models")
        return tree, dict.fromkeys(tree, OVERFLOW) | {
            "max_of_range": "fp32 is constant",
            "nrmse": "fp32 is constant, and INT8 differs from it",
            **dict.fromkeys(
                ("parts_axis", "parts_nrmse", "parts_std"), "only for samples with an axis of 2 to 256 values"
            ),
            "sqnr_db": OVERFLOW if self.signal and self.noise else _NO_SIGNAL if self.noise else _NO_NOISE,
            **dict.fromkeys(
                ("min_cosine", "min_cosine_sample", "mean_cosine"), "one value per sample has no direction"
            ),
            "rank_correlation": "only for outputs with one value per sample, which must vary",
            "worst_sample": "nothing moved",
        }

    def quantile(self, share: float) -> float | None:
        """A quantile of the absolute difference, within `RELATIVE_ERROR`, at most the maximum; None without values."""
        value = self.distances.quantile(share)
        return None if value is None else min(value, self.largest)

    def _update_floats(
        self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray, *, shape: tuple[int, ...]
    ) -> None:
        """Add rows [n, k], float64, of samples of a shape."""
        difference = candidate - reference
        distance = np.abs(difference)
        same = (reference == candidate) | (np.isnan(reference) & np.isnan(candidate))
        self.equal += int(np.count_nonzero(same))
        finite = np.isfinite(reference) & np.isfinite(candidate)
        if finite.all():
            self.worst.update(indices, distance, reference, candidate)
            self.pairs.update(indices, reference, candidate)
            self.add_values(reference, difference)
            self.distances.update(distance)
        else:
            self.nonfinite_fp32 += int(np.count_nonzero(~np.isfinite(reference)))
            differing = indices[~(finite | same).all(axis=1)]
            self.nonfinite_samples += len(differing)
            self.nonfinite_first = sorted([*self.nonfinite_first, *differing.tolist()])[:NONFINITE_KEPT]
            # NaN or infinity in one model only is an infinite distance; the same in both is none.
            error = np.where(finite, distance, np.where(same, 0.0, np.inf))
            self.worst.update(indices, error, reference, candidate)
            self.pairs.update(indices, reference, candidate, keep=finite)
            self.add_values(reference[finite], difference[finite])
            if finite.any():
                self.distances.update(distance[finite])
            rows = finite.all(axis=1)
            indices, reference, candidate = indices[rows], reference[rows], candidate[rows]
        if len(reference):
            self._update_cosine(indices, reference, candidate)
            shaped = [side.reshape(len(side), *shape) for side in (reference, candidate)]
            self.parts.update(*shaped)
            if self.axes:
                self.axes = self.axes.intersection(probability_axes(shaped[0]))

    def _update_cosine(self, indices: np.ndarray, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Two zero rows agree (1); a zero row and another do not (0). A single value has no direction."""
        if reference.shape[1] < 2:
            return
        similarity = np.clip(np.einsum("ij,ij->i", _unit(reference), _unit(candidate)), -1.0, 1.0)
        similarity[~reference.any(axis=1) & ~candidate.any(axis=1)] = 1.0
        self.directions += len(similarity)
        self.cosine_total += float(similarity.sum())
        at = int(similarity.argmin())
        self._lower_cosine((float(similarity[at]), int(indices[at])))

    def _lower_cosine(self, cosine: tuple[float, int] | None) -> None:
        if cosine is not None and (self.cosine is None or cosine < self.cosine):
            self.cosine = cosine


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float64 [n, k]; scaled first, as squares of values beyond 1e154 overflow."""
    peak = np.abs(rows).max(axis=1, keepdims=True)
    peak[peak == 0] = 1.0
    scaled = rows / peak
    length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    length[length == 0] = 1.0
    return np.asarray(scaled / length)
