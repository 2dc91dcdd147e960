"""What the search split cannot know: the tail of the largest difference, the flip rate over more samples. Pure."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.common.compare.decided import upper_bound

Tree = Mapping[str, Any]

FEWEST = 9
"""Samples below which they are not dealt into parts."""


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
