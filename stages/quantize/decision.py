"""What became of a node with a weight: quantized and how, or kept float and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """What became of one node.

    Attributes:
        quantized: whether its weight is stored in 8 bits or fewer now.
        how: of a quantized node, e.g. `dynamic QInt8 per channel`; empty otherwise.
        reason: of a node kept float, why, and what to do about it where something can be done; empty otherwise.
        sqnr_db: of its weights, in dB; None where it was kept float or nothing was lost.
    """

    quantized: bool
    how: str = ""
    reason: str = ""
    sqnr_db: float | None = None


def kept(reason: str) -> Decision:
    """The decision to keep a node float."""
    return Decision(quantized=False, reason=reason)
