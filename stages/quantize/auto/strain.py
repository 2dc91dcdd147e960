"""How much of its tolerance each rule of parity uses: one number for how near a model is to failing. Pure."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stages.common.compare.decided import upper_bound
from stages.common.judging.rules import CONSTANT_RULES
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
