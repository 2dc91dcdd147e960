"""A model in which each node has a choice of its own: the methods, one after the other, each on the nodes it is for."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from stages.quantize import methods
from stages.quantize.auto.choices import CHOICES, KEPT
from stages.quantize.methods import Assignment, CalibrationFeeds
from stages.quantize.outcome import NodeOutcome, kept


def mixed(
    model: ir.Model, nodes: Sequence[Assignment], choices: Mapping[str, str], calibration: CalibrationFeeds
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Quantize each node as chosen.

    Args:
        model: the clean float model; not changed.
        nodes: of it, with their params, which choices override.
        choices: the name of a choice by name of a node; nodes without one stay float.
        calibration: feeds for static.

    Returns:
        The model, and what became of each of `nodes`.
    """
    chosen = [
        Assignment(assigned.node, kind.params(assigned.params), kind.smoothed, kind.padded)
        for assigned in nodes
        if (choice := choices.get(assigned.name, KEPT)) != KEPT and (kind := CHOICES[choice])
    ]
    outcomes = {assigned.name: kept("chosen by quantize.method auto") for assigned in nodes}
    quantized, made = methods.quantize(model, chosen, calibration)
    return quantized, outcomes | made
