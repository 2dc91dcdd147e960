"""Quantize every node by its own choice."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from stages.quantize import methods
from stages.quantize.auto.choices import CHOICES, KEPT
from stages.quantize.methods import Assignment, CalibrationFeeds
from stages.quantize.outcome import NodeOutcome, kept


def mixed(
    model: ir.Model, nodes: Sequence[Assignment], choices: Mapping[str, str], calibration: CalibrationFeeds
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Quantize each node by its choice.

    Args:
        model: the clean float model; not changed.
        nodes: the nodes that may be quantized, with params that choices override.
        choices: names of choices by node name; nodes without one stay float.
        calibration: feeds for static.

    Returns:
        The model, and the outcomes of `nodes` by name.
    """
    chosen = [
        Assignment(assigned.node, kind.params(assigned.params), kind.smoothed, kind.padded)
        for assigned in nodes
        if (choice := choices.get(assigned.name, KEPT)) != KEPT and (kind := CHOICES[choice])
    ]
    outcomes = {assigned.name: kept("chosen by quantize.method auto") for assigned in nodes}
    quantized, of_chosen = methods.quantize(model, chosen, calibration)
    return quantized, outcomes | of_chosen
