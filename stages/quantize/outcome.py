"""The outcome of a node with a weight: quantized and how, or kept float and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NodeOutcome:
    """The outcome of one node.

    Attributes:
        quantized: whether its weight is now stored in 8 bits or fewer.
        how: e.g. `QInt8 per channel`; empty if it was kept float.
        reason: why it was kept float, and what to do about it; empty if it was quantized.
        sqnr_db: the lowest SQNR of its weights, in dB; None if it was kept float or nothing was lost.
        full_range_sqnr_db: the same without portable scales; None if they were not used.
        becomes: names of the nodes of the INT8 model that replace it; empty if it was kept float.
        breaks: whether it was kept float because quantizing it, alone or with others, breaks the model.
    """

    quantized: bool
    how: str = ""
    reason: str = ""
    sqnr_db: float | None = None
    full_range_sqnr_db: float | None = None
    becomes: tuple[str, ...] = ()
    breaks: bool = False


def kept(reason: str, *, breaks: bool = False) -> NodeOutcome:
    """The outcome of a node that stays float."""
    return NodeOutcome(quantized=False, reason=reason, breaks=breaks)


def kept_in_opset(version: int, needed: int) -> NodeOutcome:
    """The outcome of a node of a model whose opset is too old for INT8 operators."""
    return kept(
        f"INT8 needs opset {needed}, but the model has {version} and cannot be converted; "
        "export it with opset 13 or later"
    )
