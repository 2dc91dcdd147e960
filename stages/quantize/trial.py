"""Quantize as many nodes as pass the check: bisection finds those that break the model, which stay float."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from stages.quantize.methods import Assignment
from stages.quantize.outcome import NodeOutcome, kept

TRIALS = 48
"""Most models to build and run: one bad node among a thousand takes twenty."""

Make = Callable[[Sequence[Assignment]], tuple[ir.Model, dict[str, NodeOutcome]]]
"""Quantizes the given nodes; returns the model and the outcomes by node name."""

Fault = Callable[[ir.Model], str]
"""Why a quantized model must not be published; empty if it may be published."""


def most_that_passes(
    make: Make, nodes: Sequence[Assignment], fault: Fault
) -> tuple[ir.Model | None, dict[str, NodeOutcome]]:
    """Quantize `nodes`, except those that break the model.

    Groups that fail are halved until single nodes are left; nodes that passed stay quantized meanwhile.

    Returns:
        The model, or None if nothing was quantized; and the outcomes of `nodes` by name.
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
        candidate, tried = make([*good, *group])
        changed = any(tried[node.name].quantized for node in group)
        problem = fault(candidate) if changed else ""
        if not problem:
            good += group
            model, outcomes = (candidate, tried) if changed else (model, outcomes | tried)
        elif len(group) == 1:
            refused[group[0].name] = kept(f"quantizing it breaks the model: {problem}")
        else:
            groups[:0] = [group[: len(group) // 2], group[len(group) // 2 :]]
    unknown = kept(f"quantizing it with others breaks the model; {TRIALS} trials did not find the node at fault")
    refused |= {node.name: unknown for group in groups for node in group}
    return model, outcomes | refused
