"""Cleaning the float model: rewrites that change no answers and make its weights accessible by name."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph import equivalence
from stages.common.graph.equivalence import Reference
from stages.common.graph.passes import (
    compute_constants,
    drop_listed_initializers,
    inline_functions,
    name_nodes,
    remove_dropout,
    remove_unused,
    repair_opset_imports,
    share_constants,
    split_fused,
    unchanged_states,
)

Pass = Callable[[ir.Model], PassResult]
"""Rewrites a model in place. If it raises, it is undone."""

PASSES: tuple[tuple[str, Pass], ...] = (
    ("opset imports repaired", repair_opset_imports.apply),
    ("initializers removed from the inputs", drop_listed_initializers.apply),
    ("local functions inlined", inline_functions.apply),
    ("unchanged states of loops read from outside", unchanged_states.apply),
    ("dropout removed", remove_dropout.apply),
    ("unused weights removed", remove_unused.apply),
    ("fused operators split", split_fused.apply),
    ("constant weights computed", compute_constants.apply),
    ("constant weights of branches shared", share_constants.apply),
    ("nodes named", name_nodes.apply),
)
"""In order: each may rely on those before it."""


@dataclass(frozen=True)
class Step:
    """A pass that changed something or failed: its name, and why it was undone; empty if it was kept."""

    name: str
    undone: str = ""


def clean(model: ir.Model, expected: Reference, leave: Collection[Pass] = ()) -> tuple[ir.Model, list[Step]]:
    """Apply every pass except those in `leave` to a copy; undo those that fail or after which the model differs."""
    cleaned, steps = _apply(model, expected, leave, checked=False)
    if any(step.undone for step in steps) or (steps and equivalence.difference(cleaned, expected)):
        cleaned, steps = _apply(model, expected, leave, checked=True)
    return cleaned, steps


def _apply(
    model: ir.Model, expected: Reference, leave: Collection[Pass], *, checked: bool
) -> tuple[ir.Model, list[Step]]:
    """Apply the passes in order; with `checked`, undo each one after which the model differs."""
    steps = []
    for name, apply in PASSES:
        if apply in leave:
            continue
        try:
            result = apply(model.clone())
        except Exception as error:  # passes of onnx-ir raise anything; one that fails is not applied
            steps.append(Step(name, " ".join(str(error).split())[:200] or type(error).__name__))
            continue
        if not result.modified:
            continue
        fault = equivalence.difference(result.model, expected) if checked else ""
        steps.append(Step(name, fault))
        if not fault:
            model = result.model
    return model, steps
