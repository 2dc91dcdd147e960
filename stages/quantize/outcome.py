"""What became of a node with a weight: quantized and how, or kept float and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NodeOutcome:
    """What became of one node.

    Attributes:
        quantized: whether its weight is stored in 8 bits or fewer now.
        how: of a quantized node, e.g. `QInt8 per channel`; empty otherwise.
        reason: of a node kept float, why, and what to do about it where something can be done; empty otherwise.
        sqnr_db: of its weights, in dB; None where it was kept float or nothing was lost.
        full_range_sqnr_db: of its weights, had portable scales not been chosen; None where they were not.
        becomes: of a quantized node, the names of the nodes of the INT8 model that do its work.
    """

    quantized: bool
    how: str = ""
    reason: str = ""
    sqnr_db: float | None = None
    full_range_sqnr_db: float | None = None
    becomes: tuple[str, ...] = ()


def kept(reason: str) -> NodeOutcome:
    """The outcome of a node that is kept float."""
    return NodeOutcome(quantized=False, reason=reason)
