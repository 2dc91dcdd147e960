"""Adjust figures of the search split to the number of samples that parity judges. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from stages.common.compare.decided import rate_bound

Tree = Mapping[str, Any]


def at_sample_count(figures: Tree, samples: int) -> dict[str, Any]:
    """The figures, with the bound of the flip rate as if `samples` had been judged, at the same flip rate.

    The search split is smaller than the judge split, and a bound over few samples fails for any model.
    """
    decisions, served = figures["decisions"], figures["judged"]["samples"]
    if not decisions["count"] or decisions["flips"] is None:
        return dict(figures)
    per_sample = decisions["count"] / max(1, served)
    count = max(decisions["count"], round(samples * per_sample))
    flips = math.ceil(decisions["flips"] * count / decisions["count"])
    judged = max(served, samples)
    return {
        **figures,
        "judged": {**figures["judged"], "samples": judged},
        "decisions": {**decisions, "count": count, "flip_rate_high95": rate_bound(flips, count, judged)},
    }
