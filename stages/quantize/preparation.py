"""What precedes quantization: the float model is cleaned, converted and rewritten, and its nodes are selected."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import onnx_ir as ir

from stages.common.base.params import Params
from stages.common.data.evaldata import EvalData
from stages.common.graph import equivalence, refusal
from stages.common.graph.cleaning import Step, clean
from stages.common.graph.equivalence import Reference
from stages.common.graph.passes import convert_opset, name_nodes, widen_float16
from stages.common.graph.weights import WeightedNode, weighted_nodes
from stages.common.model import sessions
from stages.quantize import check, methods
from stages.quantize.auto import base
from stages.quantize.auto.base import Recipe
from stages.quantize.feeds import SearchFeeds, search_feeds
from stages.quantize.outcome import NodeOutcome
from stages.quantize.selection import select

CHECK_FEEDS = 8
"""Number of feeds that the checks run: enough to notice a broken model, few enough to be fast."""

WIDENED = "float16 converted to float32"


@dataclass(frozen=True)
class Prepared:
    """The float model, ready to be quantized.

    Attributes:
        model: the model to quantize.
        nodes: every node with a weight.
        selected: the nodes to quantize, and how.
        outcomes: why the other nodes stay float, by name.
        steps: the steps of cleaning and rewriting.
        expected: answers of the fp32 model, for the checks.
        feeds: inputs for checks and calibration.
        recipe: how the model was prepared for method auto or plan; None for other methods.
    """

    model: ir.Model
    nodes: Sequence[WeightedNode]
    selected: Sequence[methods.Assignment]
    outcomes: Mapping[str, NodeOutcome]
    steps: Sequence[Step]
    expected: Reference
    feeds: SearchFeeds
    recipe: Recipe | None


def prepare(model: ir.Model, data: EvalData | None, whole: Params, name: str) -> Prepared:
    """Refuse what must not be quantized; clean and convert the model, and select its nodes.

    Args:
        model: the float model; not changed.
        data: evaluation data; None for generated inputs.
        whole: all params.
        name: what to call the model in errors.

    Raises:
        StageError: the model must not be quantized, or a setting names a node that it does not have.
    """
    params = whole.quantize
    refusal.refuse(model, name)
    refusal.refuse_non_finite_weights(model, name)
    session = sessions.open_session(model, name=name)
    feeds = search_feeds(session, data)
    expected = equivalence.reference(session, list(islice(feeds(sys.maxsize), CHECK_FEEDS)), name)
    del session
    cleaned, steps = clean(model, expected)
    selected, _ = select(weighted_nodes(cleaned), params)
    recipe = None
    if params.method == "plan" or (params.method == "auto" and selected):
        recipe = base.recipe(cleaned, expected, whole)
    needed = [methods.opset(assigned.params) for assigned in selected]
    prepared, more = converted(cleaned, expected, max(needed, default=1) if recipe is None else recipe.opset)
    refusal.refuse_non_finite_weights(prepared, name)
    if recipe is not None:
        prepared, rewrites = base.rewritten(prepared, expected, recipe)
        more += rewrites
    nodes = weighted_nodes(prepared)
    selected, outcomes = select(nodes, params)
    return Prepared(prepared, nodes, selected, outcomes, [*steps, *more], expected, feeds, recipe)


def converted(model: ir.Model, expected: Reference, opset: int) -> tuple[ir.Model, list[Step]]:
    """The clean model in the opset and the float type that quantized operators need.

    Returns:
        The model, and the steps; a step that changes the answers is undone.
    """
    steps = []
    name = f"opset converted to {opset}"
    try:
        result = convert_opset.apply(model, opset)
    except Exception as error:  # onnx raises anything; a conversion that fails is not applied
        steps.append(Step(name, " ".join(str(error).split())[:200] or type(error).__name__))
    else:
        if result.modified:
            steps.append(Step(name, equivalence.difference(result.model, expected)))
            model = model if steps[-1].undone else result.model
            name_nodes.apply(model)  # the converter adds nodes without names
    result = widen_float16.apply(model.clone())
    if result.modified:
        # float16 rounds coarsely, so the float32 model is only roughly equal.
        steps.append(Step(WIDENED, check.fault(result.model, expected)))
        model = model if steps[-1].undone else result.model
    return model, steps
