"""The share of a distance tolerance that a model uses, from its outputs on a few feeds. Pure."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from stages.common.base.params import OutputTolerance, Parity
from stages.common.decisions import are_log_probabilities, probability_axes
from stages.common.judging.rules import tolerance_of

ASSUMED_SQNR_DB = 30.0
"""The tolerance to rank errors by if parity has no distance tolerance; whole models are judged by parity's rules."""


def distance_strain(
    reference: Mapping[str, Sequence[np.ndarray]], candidate: Mapping[str, Sequence[np.ndarray]], parity: Parity
) -> float | None:
    """The largest strain of the distance rules; None if no float outputs can be compared.

    Args:
        reference: the fp32 outputs by name, an array per feed.
        candidate: the outputs of another model, in the same form.
        parity: the tolerances.
    """
    strains = []
    for name, arrays in reference.items():
        if arrays[0].dtype.kind != "f" or any(a.shape != b.shape for a, b in zip(arrays, candidate[name], strict=True)):
            continue
        before, after = (
            np.concatenate([array.reshape(-1) for array in side]).astype(np.float64)
            for side in (arrays, candidate[name])
        )
        if not before.size or not np.isfinite(before).all():
            continue
        if logarithms := probability_axes(arrays[0], are_log_probabilities):
            before, after = np.exp(before), np.exp(after)
        kind = "probabilities" if logarithms or probability_axes(arrays[0]) else "float"
        strains.append(_distance(before, after - before, tolerance_of(name, kind, parity)))
    return max(strains, default=None)


def _distance(reference: np.ndarray, moved: np.ndarray, tolerance: OutputTolerance) -> float:
    """The largest strain of one output; 0 without noise, infinite if a value is not finite."""
    if not np.isfinite(moved).all():
        return math.inf
    noise, signal = float(np.square(moved).sum()), float(np.square(reference).sum())
    if not noise:
        return 0.0
    share = noise / signal if signal else math.inf
    limits = [
        (float(np.abs(moved).max()), tolerance.abs_tol),
        (float(np.abs(moved).mean()), tolerance.mean_tol),
        (math.sqrt(noise / moved.size) / float(reference.std() or math.inf), tolerance.max_nrmse),
        (math.sqrt(share / 2), None if tolerance.min_cosine is None else math.sqrt(1 - tolerance.min_cosine)),
    ]
    strains = [value / limit for value, limit in limits if limit]
    if tolerance.min_sqnr_db is not None or not strains:
        least = ASSUMED_SQNR_DB if tolerance.min_sqnr_db is None else tolerance.min_sqnr_db
        strains.append(math.sqrt(share) * 10 ** (least / 20))
    return max(strains)
