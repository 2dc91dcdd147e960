"""A model in which each node has a choice of its own: the methods, one after the other, each on the nodes it is for."""

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from stages.common.base.params import Quantize
from stages.common.graph import equivalence
from stages.common.graph.cleaning import Step
from stages.common.graph.equivalence import Reference
from stages.common.graph.weights import WeightedNode
from stages.quantize import methods
from stages.quantize.auto.choices import CHOICES, KEPT
from stages.quantize.methods import CalibrationFeeds, static
from stages.quantize.methods.static import fold_scales, pool_last
from stages.quantize.methods.static.ranges import Known
from stages.quantize.outcome import NodeOutcome, kept


def mixed(
    model: ir.Model,
    nodes: Sequence[WeightedNode],
    assignment: Mapping[str, str],
    params: Quantize,
    ranges: Known,
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Quantize each node as assigned.

    Args:
        model: the clean float model; not changed.
        nodes: of it.
        assignment: the name of a choice by name of a node; nodes without one stay float.
        params: the section `quantize`; choices override keys of it.
        ranges: of the model's float activations, for static.

    Returns:
        The model, and what became of each of `nodes`.
    """
    outcomes = {node.name: kept("chosen by quantize.method auto") for node in nodes}
    for choice in CHOICES.values():
        chosen = [node for node in nodes if assignment.get(node.name, KEPT) == choice.name]
        if chosen:
            own = choice.params(params)
            if choice.method == "static":
                model, made = static.quantize_by_ranges(model, chosen, own, ranges)
            else:
                model, made = methods.by_name(choice.method).quantize(model, chosen, own, lambda: iter(()))
            outcomes |= made
    return model, outcomes


def maker(
    model: ir.Model, nodes: Sequence[WeightedNode], params: Quantize, calibration: CalibrationFeeds
) -> Callable[[Mapping[str, str]], tuple[ir.Model, dict[str, NodeOutcome]]]:
    """`mixed` over one model, whose activations are looked at once for all assignments."""
    ranges = Known(calibration, params.calibration.method)
    return lambda assignment: mixed(model, nodes, assignment, params, ranges)


def folded(model: ir.Model, expected: Reference) -> tuple[ir.Model, list[Step]]:
    """The float model with the rewrites that static makes around any Conv, so that all choices start from one model."""
    result = model.clone()
    names = {node.name or "" for node in result.graph if node.op_type == "Conv"}
    modified = [fold_scales.apply(result, names).modified, pool_last.apply(result).modified]
    if not any(modified):
        return model, []
    undone = equivalence.difference(result, expected)
    return (model if undone else result), [Step("scales of convolutions folded", undone)]
