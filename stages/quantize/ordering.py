"""Operators that pick and order values: behind them a small error swaps whole rows, which then count as wrong."""

import onnx_ir as ir

from stages.common.graph.walk import all_nodes

_PICKS = frozenset({"NonMaxSuppression", "TopK"})


def swaps(model: ir.Model) -> str:
    """A sentence on such operators of a model, and the remedy; empty if it has none."""
    picks = sorted({node.op_type for node in all_nodes(model) if node.op_type in _PICKS})
    if not picks:
        return ""
    pick, them = ("picks and orders", "it") if len(picks) == 1 else ("pick and order", "them")
    return (
        f"{' and '.join(picks)} {pick} values, so that a small error swaps whole rows of what follows, which then "
        f"count as wrong: if INT8 fails for that reason, end the model before {them}, and do the rest in your service."
    )
