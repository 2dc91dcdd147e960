"""What the search split cannot know: the tail of the largest difference, the flip rate over more samples. Pure."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.common.compare.decided import upper_bound

Tree = Mapping[str, Any]

FEWEST = 3
"""Samples that the tail is fitted to, at least."""

MOST = 1.5
"""The largest difference is not expected to grow more: a fit to a few outliers would have it grow without end."""


def tail_factor(largest: np.ndarray) -> float:
    """By how much the largest difference is expected to grow from these samples to three times as many.

    The tail is a power law, fitted to the largest sqrt(samples) (Hill 1975) and extrapolated (Weissman 1978), up to
    `MOST`. With few samples the tail is not well known, so that it is 1 + 1 / sqrt(samples) at least.

    Args:
        largest: the largest difference of each sample, float64 [samples].

    Returns:
        Above 1.
    """
    tail = np.sort(largest[np.isfinite(largest)])[::-1]
    least = 1 + 1 / math.sqrt(max(1, len(tail)))
    count = min(max(FEWEST, math.isqrt(len(tail))), len(tail) - 1)
    if count < 1 or tail[count] <= 0:
        return least
    index = np.log(tail[:count] / tail[count]).mean()
    return max(least, min(MOST, float(tail[count] * (3 * count) ** index / tail[0])))


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
