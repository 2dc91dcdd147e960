"""Where the export alone moves the answers beyond a tolerance of parity, quantization is not to blame."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.common.rule import Rule

LIMITED = {"abs_tol": "max_abs", "mean_tol": "mean_abs", "max_nrmse": "nrmse"}
"""The figure of drift that each tolerance limits from above."""

FLOORED = {"min_sqnr_db": "sqnr_db"}
"""And from below."""


def beyond_tolerance(drift: Mapping[str, Any], rules: Sequence[Rule]) -> str:
    """One sentence for the first output whose drift exceeds a tolerance; empty where none does.

    Args:
        drift: of each output, as export wrote it; empty for an ONNX source.
        rules: of parity, with their limits.
    """
    for rule in rules:
        key = LIMITED.get(rule.name) or FLOORED.get(rule.name)
        entry = drift.get(rule.output)
        moved = entry.get(key) if key and isinstance(entry, Mapping) else None
        if moved is None or not isinstance(rule.limit, int | float):
            continue
        if moved > rule.limit if rule.name in LIMITED else moved < rule.limit:
            return (
                f"The float export already drifts from its source on '{rule.output}' ({key} {moved:.3g}), beyond "
                f"parity.{rule.name} {rule.limit:g}: quantization is not to blame for that, and no setting of it helps."
            )
    return ""
