"""Quantizing as many nodes as pass the check: those that break the model are found by bisection and stay float."""

from collections.abc import Callable, Sequence

from onnx import ModelProto

from stages.quantize.decision import Decision, kept
from stages.quantize.inventory import WeightedNode

TRIALS = 48
"""Models that are made and run at most: one bad node among a thousand takes twenty."""

Attempt = Callable[[Sequence[WeightedNode]], tuple[ModelProto, dict[str, Decision]]]
"""Quantizes these nodes of the model."""

Fault = Callable[[ModelProto], str]
"""Why a quantized model must not be published; empty if it may."""


def most_that_passes(
    attempt: Attempt, nodes: Sequence[WeightedNode], fault: Fault
) -> tuple[ModelProto | None, dict[str, Decision]]:
    """Quantize `nodes`, but for those without which alone the model passes.

    Groups that fail are halved, the nodes that were found good staying quantized, until single nodes are left.

    Returns:
        The model, None where nothing is quantized in it; and a decision for each of `nodes`.
    """
    model: ModelProto | None = None
    decisions: dict[str, Decision] = {}
    refused: dict[str, Decision] = {}
    good: list[WeightedNode] = []
    groups = [list(nodes)] if nodes else []
    for _ in range(TRIALS):
        if not groups:
            break
        group = groups.pop(0)
        candidate, made = attempt([*good, *group])
        changed = any(made[node.name].quantized for node in group)
        problem = fault(candidate) if changed else ""
        if not problem:
            good += group
            model, decisions = (candidate, made) if changed else (model, decisions | made)
        elif len(group) == 1:
            refused[group[0].name] = kept(f"quantized, it breaks the model: {problem}")
        else:
            groups[:0] = [group[: len(group) // 2], group[len(group) // 2 :]]
    untold = kept(f"quantized with others, it breaks the model; {TRIALS} trials did not tell which of them does")
    refused |= {node.name: untold for group in groups for node in group}
    return model, decisions | refused
