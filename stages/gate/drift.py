"""Whether the export alone already moves the answers beyond a tolerance of parity."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.common.rule import Rule

UPPER_LIMITS = {"abs_tol": "max_abs", "mean_tol": "mean_abs", "max_nrmse": "nrmse"}
"""The drift figure that each tolerance limits from above."""

LOWER_LIMITS = {"min_sqnr_db": "sqnr_db"}
"""The drift figure that each tolerance limits from below."""


def beyond_tolerance(drift: Mapping[str, Any], rules: Sequence[Rule]) -> str:
    """A sentence on the first output whose drift exceeds a tolerance; empty if none does.

    Args:
        drift: figures by output, as export wrote them; empty for an ONNX source.
        rules: parity's rules, with their limits.
    """
    for rule in rules:
        key = UPPER_LIMITS.get(rule.name) or LOWER_LIMITS.get(rule.name)
        entry = drift.get(rule.output)
        moved = entry.get(key) if key and isinstance(entry, Mapping) else None
        if moved is None or not isinstance(rule.limit, int | float):
            continue
        if moved > rule.limit if rule.name in UPPER_LIMITS else moved < rule.limit:
            return (
                f"The fp32 export already differs from its source on '{rule.output}' ({key} {moved:.3g}), beyond "
                f"parity.{rule.name} {rule.limit:g}: quantization is not the cause, and no setting of it helps."
            )
    return ""
