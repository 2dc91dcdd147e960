"""A model in which each node has a choice of its own: the methods, one after the other, each on the nodes it is for."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from stages.common.base.params import Quantize
from stages.common.graph.weights import WeightedNode
from stages.quantize import methods
from stages.quantize.auto.choices import CHOICES, KEPT
from stages.quantize.methods import CalibrationFeeds
from stages.quantize.outcome import NodeOutcome, kept


def mixed(
    model: ir.Model,
    nodes: Sequence[WeightedNode],
    assignment: Mapping[str, str],
    params: Quantize,
    calibration: CalibrationFeeds,
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Quantize each node as assigned.

    Args:
        model: the clean float model; not changed.
        nodes: of it.
        assignment: the name of a choice by name of a node; nodes without one stay float.
        params: the section `quantize`; choices override keys of it.
        calibration: feeds for static.

    Returns:
        The model, and what became of each of `nodes`.
    """
    outcomes = {node.name: kept("chosen by quantize.method auto") for node in nodes}
    for choice in CHOICES.values():
        chosen = [node for node in nodes if assignment.get(node.name, KEPT) == choice.name]
        if chosen:
            method = methods.by_name(choice.method)
            model, made = method.quantize(model, chosen, choice.params(params), calibration)
            outcomes |= made
    return model, outcomes
