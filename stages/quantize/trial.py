"""Quantizing as many nodes as pass the check: bisection finds those that break the model, and they stay float."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from stages.quantize.methods import Assignment
from stages.quantize.outcome import NodeOutcome, kept

TRIALS = 48
"""Most models to make and run: one bad node among a thousand takes twenty."""

Make = Callable[[Sequence[Assignment]], tuple[ir.Model, dict[str, NodeOutcome]]]
"""Quantizes these nodes of the model, and gives it with the outcome for each."""

Fault = Callable[[ir.Model], str]
"""Why a quantized model must not be published; empty if it may."""


def most_that_passes(
    make: Make, nodes: Sequence[Assignment], fault: Fault
) -> tuple[ir.Model | None, dict[str, NodeOutcome]]:
    """Quantize `nodes`, except those that break the model.

    Groups that fail are halved until single nodes are left, while good nodes stay quantized.

    Returns:
        The model, None if nothing is quantized in it; and an outcome for each of `nodes`.
    """
    model: ir.Model | None = None
    outcomes: dict[str, NodeOutcome] = {}
    refused: dict[str, NodeOutcome] = {}
    good: list[Assignment] = []
    groups = [list(nodes)] if nodes else []
    for _ in range(TRIALS):
        if not groups:
            break
        group = groups.pop(0)
        candidate, made = make([*good, *group])
        changed = any(made[node.name].quantized for node in group)
        problem = fault(candidate) if changed else ""
        if not problem:
            good += group
            model, outcomes = (candidate, made) if changed else (model, outcomes | made)
        elif len(group) == 1:
            refused[group[0].name] = kept(f"quantized, it breaks the model: {problem}")
        else:
            groups[:0] = [group[: len(group) // 2], group[len(group) // 2 :]]
    unknown = kept(f"quantized with others, it breaks the model; {TRIALS} trials did not find which of them does")
    refused |= {node.name: unknown for group in groups for node in group}
    return model, outcomes | refused
