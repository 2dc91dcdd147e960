"""Quantiles of latency, where the calls suffice for them."""

import numpy as np

_BEYOND = 10
"""Calls that must lie beyond a quantile: with fewer it is the luck of a few calls."""


def calls_for(share: float) -> int:
    """How many calls a quantile takes: 100 for p90, 200 for p95, 1000 for p99; the median and below always do."""
    return 1 if share <= 0.5 else round(_BEYOND / (1 - share))


def quantile_ms(ns: np.ndarray, share: float) -> float | None:
    """The `share` quantile in milliseconds, or None where the calls do not suffice.

    Args:
        ns: durations of calls in nanoseconds, shape [calls].
        share: 0 to 1.
    """
    return float(np.quantile(ns, share)) / 1e6 if len(ns) >= calls_for(share) else None
