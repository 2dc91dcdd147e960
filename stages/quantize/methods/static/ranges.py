"""Calibration of static quantization: the ranges of activations, collected by running the fp32 model over samples.

ONNX Runtime's histogram calibrators keep every activation of every sample until the end (issue 21979). Here the
activations of a sample are dropped before the next one; all that is kept per tensor is two numbers per sample or a
histogram.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from stages.common.model import sessions

Range = tuple[float, float]
"""Lowest and highest value that the quantized values must cover."""

Feeds = Callable[[], Iterable[sessions.Feed]]
"""Starts a pass over the calibration samples."""

BINS = 2048
"""Number of bins of a histogram over a tensor's whole range: eight times finer than 8-bit values."""

PERCENTILE = 99.999
"""Percent of the values inside the range of `percentile`; ONNX Runtime's default."""

ENTROPY_LEVELS = 128
"""Number of levels on each side of zero for `entropy`, as in a signed 8-bit type."""

UNSEEN = 6
"""`minmax` makes ranges wide enough for this many times the samples seen: parity judges six times as many as `auto`
calibrates on."""

FEWEST = 12
"""With fewer samples, ranges are not extended: too few to show how their largest values are distributed."""

PARTS_PER_FEED = 32
"""Most parts of a feed whose lowest and highest values are kept."""

ROWS = 256
ROWS_PER_FEED = 32
"""Number of rows of an activation that smoothing is fitted to, in total and per feed."""

_ENTROPY_STRIDE = 16
_SMOOTHING = 1e-4


def collect(model: ir.Model, names: Sequence[str], feeds: Feeds, method: str) -> dict[str, Range]:
    """The ranges of tensors of the main graph over all samples.

    NaN and infinities do not count. A tensor that is not float32, or that never held a finite value, is missing from
    the result.

    Args:
        model: the fp32 model.
        names: names of the tensors.
        feeds: the calibration samples; read once for `minmax`, twice for the others.
        method: `minmax`, the whole range, extended to what unseen samples are expected to reach (see
            `expected_largest`); `percentile`, the middle `PERCENTILE` percent of the values; `entropy`, the
            threshold with the least Kullback-Leibler divergence (see `entropy_threshold`).

    Raises:
        StageError: the model with these outputs does not load or run.
    """
    probe = _Probe(model, names)
    seen: dict[str, list[np.ndarray]] = {}
    for name, pairs in probe.ends(feeds()):
        seen.setdefault(name, []).append(pairs)
    ends = {name: np.concatenate(pairs, axis=1) for name, pairs in seen.items()}
    if method == "minmax":
        return {name: (-expected_largest(-low), expected_largest(high)) for name, (low, high) in ends.items()}
    extremes = {name: (float(low.min()), float(high.max())) for name, (low, high) in ends.items()}
    counts = {name: np.zeros(BINS, np.int64) for name in extremes}
    magnitudes = method == "entropy"
    for name, values in probe.values(feeds()):
        low, high = extremes[name]
        span = (0.0, max(-low, high)) if magnitudes else (low, high)
        counts[name] += histogram(np.abs(values) if magnitudes else values, span)
    pick = _by_entropy if magnitudes else _by_percentile
    return {name: pick(counts[name], extremes[name]) for name in extremes}


def expected_largest(largest: np.ndarray, times: int = UNSEEN) -> float:
    """The largest value to expect in `times` as many samples; never less than the largest seen.

    A model serves many more samples than it is calibrated on, and clips values outside its ranges. That is rare, but it
    moves answers more than rounding does. In a tail that falls off as exp(-x / scale), the gap below the k-th largest
    of the values, times k, is exponential with that scale (A. Renyi, On the theory of order statistics, 1953), and
    `times` as many values reach scale * ln(times) further. The scale is the median of these products over the largest
    quarter of the values, divided by ln 2: a lone outlier hardly counts, and values with an upper bound, such as
    pixels, are not extended.

    Args:
        largest: the largest value of each sample, float64 [samples]; with fewer than `FEWEST` it is not extended.
        times: how many times as many samples.
    """
    ordered = np.sort(largest)[::-1]
    if len(ordered) < FEWEST:
        return float(ordered[0])
    ranks = np.arange(1, 1 + len(ordered) // 4)
    gaps = ordered[ranks - 1] - ordered[ranks]
    return float(ordered[0] + np.median(ranks * gaps) / math.log(2) * math.log(times))


class Known:
    """Ranges by tensor name, collected once for all models in which the names mean the same float tensors.

    Attributes:
        smoothing: the exponents of two that the channels of activations are divided by, see `smooth`. Keys are the
            activation scale, `tensor` or `row`, and the names of the nodes that read the activation.
    """

    def __init__(
        self,
        feeds: Callable[[], Iterator[sessions.Feed]],
        method: str,
        collected: Mapping[str, Range] | None = None,
        smoothing: Mapping[tuple[str, ...], Sequence[int]] | None = None,
        rows: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.smoothing: dict[tuple[str, ...], Sequence[int]] = dict(smoothing or {})
        self._feeds = feeds
        self._method = method
        self._ranges: dict[str, Range | None] = dict(collected or {})
        self._rows: dict[str, np.ndarray | None] = dict(rows or {})

    @property
    def collected(self) -> dict[str, Range]:
        """The ranges collected so far."""
        return {name: span for name, span in self._ranges.items() if span is not None}

    def __call__(self) -> Iterator[sessions.Feed]:
        """The calibration samples, from the first."""
        return self._feeds()

    def of(self, model: ir.Model, names: Sequence[str]) -> dict[str, Range]:
        """The ranges of tensors; see `collect`."""
        if missing := [name for name in names if name not in self._ranges]:
            collected = collect(model, missing, self._feeds, self._method)
            self._ranges |= {name: collected.get(name) for name in missing}
        return {name: span for name in names if (span := self._ranges[name]) is not None}

    def rows(self, model: ir.Model, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Up to `ROWS` rows of each tensor, float32 [rows, last dimension], spread over all samples."""
        if missing := [name for name in names if name not in self._rows]:
            collected = sampled_rows(model, missing, self._feeds)
            self._rows |= {name: collected.get(name) for name in missing}
        return {name: rows for name in names if (rows := self._rows[name]) is not None}


def known(feeds: Callable[[], Iterator[sessions.Feed]], method: str) -> Known:
    """`feeds` themselves if they are `Known`, else new ranges over these samples."""
    return feeds if isinstance(feeds, Known) else Known(feeds, method)


def sampled_rows(model: ir.Model, names: Sequence[str], feeds: Feeds) -> dict[str, np.ndarray]:
    """Up to `ROWS` rows of each float tensor, float32 [rows, last dimension], taken evenly from all feeds."""
    probe = _Probe(model, names)
    kept: dict[str, list[np.ndarray]] = {}
    for name, values in probe.arrays(feeds()):
        if values.ndim > 0 and values.size and np.isfinite(values).all():
            rows = values.reshape(-1, values.shape[-1])
            kept.setdefault(name, []).append(rows[:: -(-len(rows) // ROWS_PER_FEED)])
    return {name: _thinned(np.concatenate(rows)) for name, rows in kept.items() if len({r.shape[1] for r in rows}) == 1}


def _thinned(rows: np.ndarray) -> np.ndarray:
    return rows[:: -(-len(rows) // ROWS)]


class _Probe:
    """A session of `model` that returns the tensors `names`."""

    def __init__(self, model: ir.Model, names: Sequence[str]) -> None:
        self._names = list(dict.fromkeys(names))
        probed = model.clone()
        graph = probed.graph
        values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
        wanted = {value.name: value for value in values if value.name in self._names}
        graph.outputs.extend(wanted[name] for name in self._names if not wanted[name].is_graph_output())
        self._session = sessions.open_session(probed, name="the model with its activations as outputs")

    def values(self, feeds: Iterable[sessions.Feed]) -> Iterable[tuple[str, np.ndarray]]:
        """Yield the name and the finite values, float32 [values], of each tensor that has any, for each feed."""
        for name, array in self.arrays(feeds):
            finite = array[np.isfinite(array)]
            if finite.size:
                yield name, finite

    def ends(self, feeds: Iterable[sessions.Feed]) -> Iterable[tuple[str, np.ndarray]]:
        """Yield the name of each tensor with finite values, and the ends of its parts' ranges, float64 [2, parts].

        If all inputs of a feed have the same length, a tensor of that length holds a sample per row, and is cut along
        axis 0 into at most `PARTS_PER_FEED` parts. Any other tensor is one part.
        """
        for feed in feeds:
            lengths = {array.shape[:1] for array in feed.values()}
            for name, array in self.arrays([feed]):
                samples = array.shape[0] if array.size and array.ndim and lengths == {array.shape[:1]} else 1
                cut = np.array_split(np.atleast_1d(array), min(samples, PARTS_PER_FEED))
                parts = (part[np.isfinite(part)] for part in cut)
                if found := [(part.min(), part.max()) for part in parts if part.size]:
                    yield name, np.array(found, np.float64).T

    def arrays(self, feeds: Iterable[sessions.Feed]) -> Iterable[tuple[str, np.ndarray]]:
        """Yield the name and the array of each float32 tensor, for each feed."""
        for feed in feeds:
            arrays = sessions.run(self._session, feed, self._names, name="the fp32 model")
            for name, array in zip(self._names, arrays, strict=True):
                if isinstance(array, np.ndarray) and array.dtype == np.float32:
                    yield name, array


def histogram(values: np.ndarray, span: Range) -> np.ndarray:
    """Counts of values in `BINS` equal bins over `span`, which contains them all: int64, shape [BINS].

    Unlike `np.histogram` it accepts a span of width 0, or one too narrow to hold `BINS` float32 numbers.
    """
    low, high = span
    scale = BINS / (high - low) if high > low else 0.0
    bins = ((values.astype(np.float64) - low) * scale).astype(np.int64)
    return np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)


def entropy_threshold(counts: np.ndarray, levels: int = ENTROPY_LEVELS) -> float:
    """The clipping threshold, as a share of a histogram's span, that preserves the distribution best.

    S. Migacz, 8-bit Inference with TensorRT, GTC 2017: for each candidate threshold, compare the clipped distribution,
    with outliers added to its last bin, to its quantization to `levels` levels, and take the threshold with the least
    Kullback-Leibler divergence. Candidates are `_ENTROPY_STRIDE` bins apart; empty bins are smoothed. The first bin
    gets the count of the second: zeros, half of the output of a Relu, are exact at any threshold.

    Args:
        counts: histogram of magnitudes from 0 to the largest, int64, shape [bins].
        levels: number of levels of the quantized type on one side of zero.

    Returns:
        Above 0, at most 1.
    """
    bins = len(counts)
    if bins <= levels:
        return 1.0
    counts = np.concatenate([counts[1:2], counts[1:]])
    if not counts.any():
        return 1.0
    candidates = np.unique(np.append(np.arange(levels, bins, _ENTROPY_STRIDE), bins))
    divergences = [_clipping_divergence(counts, int(kept), levels) for kept in candidates]
    return float(candidates[int(np.argmin(divergences))]) / bins


def _clipping_divergence(counts: np.ndarray, kept: int, levels: int) -> float:
    inside = counts[:kept].astype(np.float64)
    if not inside.any():
        return np.inf
    reference = inside.copy()
    reference[-1] += counts[kept:].sum()
    level = np.arange(kept) * levels // kept
    occupied = inside > 0
    share = np.bincount(level, inside, levels) / np.maximum(np.bincount(level, occupied, levels), 1)
    p, q = _smoothed(reference), _smoothed(np.where(occupied, share[level], 0.0))
    return float(np.sum(p * np.log(p / q)))


def _smoothed(counts: np.ndarray) -> np.ndarray:
    """Counts as a distribution without zeros, of the same shape, with sum 1."""
    shares = counts / counts.sum() + _SMOOTHING / len(counts)
    return cast(np.ndarray, shares / shares.sum())


def percentile_range(counts: np.ndarray, span: Range, percent: float = PERCENTILE) -> Range:
    """The edges of the bins that hold the middle `percent` of the values of a histogram over `span`."""
    cumulated = np.cumsum(counts) / counts.sum()
    tail = (100.0 - percent) / 200.0
    first = int(np.searchsorted(cumulated, tail, side="right"))
    last = int(np.searchsorted(cumulated, 1.0 - tail))
    edges = np.linspace(*span, len(counts) + 1)
    return float(edges[min(first, last)]), float(edges[last + 1])


def _by_percentile(counts: np.ndarray, extremes: Range) -> Range:
    low, high = percentile_range(counts, extremes)
    return max(low, extremes[0]), min(high, extremes[1])


def _by_entropy(counts: np.ndarray, extremes: Range) -> Range:
    low, high = extremes
    threshold = entropy_threshold(counts) * max(-low, high)
    return max(low, -threshold), min(high, threshold)
