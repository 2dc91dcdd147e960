"""Quantiles of latency, where the calls suffice for them."""

import numpy as np

_BEYOND = 10


def quantile_ms(ns: np.ndarray, share: float) -> float | None:
    """The `share` quantile in milliseconds, or None where fewer than ten calls lie beyond it.

    So p90 takes 100 calls, p95 200, p99 1000: with fewer, a high quantile is the luck of a few calls.

    Args:
        ns: durations of calls in nanoseconds, shape [calls].
        share: 0 to 1.
    """
    if len(ns) * (1 - share) < _BEYOND - 1e-9 and share > 0.5:
        return None
    return float(np.quantile(ns, share)) / 1e6
