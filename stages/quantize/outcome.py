"""The outcome for a node with a weight: quantized and how, or kept float and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NodeOutcome:
    """The outcome for one node.

    Attributes:
        quantized: whether its weight is now stored in 8 bits or fewer.
        how: of a quantized node, e.g. `QInt8 per channel`; else empty.
        reason: of a node kept float, why, and what to do about it if anything; else empty.
        sqnr_db: of its weights, in dB; None if it was kept float or nothing was lost.
        full_range_sqnr_db: of its weights without portable scales; None if they were not used.
        becomes: of a quantized node, the names of the nodes of the INT8 model that replace it.
    """

    quantized: bool
    how: str = ""
    reason: str = ""
    sqnr_db: float | None = None
    full_range_sqnr_db: float | None = None
    becomes: tuple[str, ...] = ()


def kept(reason: str) -> NodeOutcome:
    return NodeOutcome(quantized=False, reason=reason)
