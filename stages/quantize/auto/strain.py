"""What the search split cannot know: the tail of the largest difference, the flip rate over more samples. Pure."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.common.compare.decided import upper_bound

Tree = Mapping[str, Any]

LARGEST = 3
"""Samples whose mean is the scale of the tail: the largest one says more of its own luck than of the next."""

GROWTH, FIRST_GROWTH = 14.0, 40.0
"""From n samples to three times as many, that mean grows to 1 + GROWTH / sqrt(n) times, and the largest to
1 + FIRST_GROWTH / n times at least: fitted over many models, whose figures are in docs/auto.md."""

FEWEST = 9
"""Below so many samples, growth is that of so many."""


def tail_factor(largest: np.ndarray) -> float:
    """By how much the largest difference grows, it is expected, from these samples to three times as many.

    The tail is a power law that is fitted to the largest sqrt(samples) (Hill 1975), and extrapolated (Weissman 1978).
    Where a few outliers make it up, its index is not known from one model, and the growth over many models limits it,
    as hydrologists pool the growth of floods over rivers (Dalrymple 1960; Hosking and Wallis 1997).

    Args:
        largest: the largest difference of each sample, float64 [samples].

    Returns:
        1 at least.
    """
    tail = np.sort(largest[np.isfinite(largest)])[::-1]
    if not tail[:1].any():
        return 1.0
    samples = max(FEWEST, len(tail))
    limit = max((1 + GROWTH / math.sqrt(samples)) * tail[:LARGEST].mean(), (1 + FIRST_GROWTH / samples) * tail[0])
    count = min(max(LARGEST, math.isqrt(len(tail))), len(tail) - 1)
    if count and tail[count] > 0:
        index = np.log(tail[:count] / tail[count]).mean()
        limit = min(limit, tail[count] * (3 * count) ** index)
    return max(1.0, float(limit / tail[0]))


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
