"""How much of its tolerance each rule of parity uses: one number for how near a model is to failing. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stages.common.base.params import OutputTolerance, Parity
from stages.common.compare.flips import upper_bound
from stages.common.decisions import are_probabilities, as_scores
from stages.common.judging.rules import CONSTANT_RULES, tolerance_of
from stages.common.rule import Rule

Tree = Mapping[str, Any]

FEWEST = 9
"""Samples below which they are not dealt into parts."""


def strain(rule: Rule) -> float:
    """The share of its tolerance that a rule uses: 1 at the limit, above 1 where it fails.

    In units of amplitude for every rule, so that half the strain is half the error: a decibel is 10^(1/20), and
    1 - cosine grows with the square of the error.
    """
    if rule.value == "inf":  # of min_sqnr_db: no noise at all
        return 0.0
    if rule.name in CONSTANT_RULES or not (isinstance(rule.value, float | int) and isinstance(rule.limit, float | int)):
        return math.inf if rule.failed else 0.0
    value, limit = rule.value, rule.limit
    if rule.name == "min_sqnr_db":
        return float(10 ** ((limit - value) / 20))
    if rule.name == "min_cosine":
        value, limit = math.sqrt(max(0.0, 1 - value)), math.sqrt(max(0.0, 1 - limit))
    if limit <= 0:
        return 0.0 if value <= 0 else math.inf
    return max(0.0, value) / limit


ASSUMED_SQNR_DB = 30.0
"""Held against errors where no tolerance is one of distance: they are ranked by it, and whole models are judged."""


def distance_strain(
    reference: Mapping[str, Sequence[np.ndarray]], candidate: Mapping[str, Sequence[np.ndarray]], parity: Parity
) -> float | None:
    """The largest strain of the rules of distance over some calls; None without a float output to compare.

    Args:
        reference: by output, an array for each call.
        candidate: the same of another model.
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
        scores = as_scores(arrays[0])
        kind = "probabilities" if are_probabilities(scores) else "float"
        strains.append(_distance(before, after - before, tolerance_of(name, kind, parity)))
    return max(strains, default=None)


def _distance(reference: np.ndarray, moved: np.ndarray, tolerance: OutputTolerance) -> float:
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


def largest_strain(rules: Iterable[Rule]) -> float:
    """The strain of the rule that is nearest to failing; 0 without rules."""
    return max(map(strain, rules), default=0.0)


def tail_factor(largest: np.ndarray) -> float:
    """By how much the largest difference grows, it is expected, from these samples to three times as many.

    The samples are dealt into three parts: from a part to the whole their number grows threefold, too. Where a few
    samples make all of the difference, as outliers do, this is far above 1. With few samples the tail is not known
    well, and 1 / sqrt(samples) is added for that.

    Args:
        largest: the largest difference of each sample, float64 [samples].

    Returns:
        Above 1.
    """
    finite = largest[np.isfinite(largest)]
    unknown = 1 + 1 / math.sqrt(max(1, len(finite)))
    if len(finite) < FEWEST or not finite.max(initial=0.0):
        return unknown
    parts = [finite[start::3].max() for start in range(3)]
    return float(unknown * finite.max() / np.mean(parts))


def at_sample_count(figures: Tree, samples: int) -> dict[str, Any]:
    """The figures with the bound of the flip rate that as many flips per decision would give over `samples`.

    The search split is smaller than what parity judges, and a bound over few samples fails whatever the model does.
    """
    decisions = figures["decisions"]
    if not decisions["count"] or decisions["flips"] is None:
        return dict(figures)
    per_sample = decisions["count"] / max(1, figures["judged"]["samples"])
    count = max(decisions["count"], round(samples * per_sample))
    flips = math.ceil(decisions["flips"] * count / decisions["count"])
    return {**figures, "decisions": {**decisions, "count": count, "flip_rate_high95": upper_bound(flips, count)}}
