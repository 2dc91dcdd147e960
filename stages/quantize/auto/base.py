"""The float model that all candidates are made from: in the fastest opset, with rewrites that all choices gain from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.base.params import Params
from stages.common.graph import equivalence
from stages.common.graph.cleaning import Step
from stages.common.graph.equivalence import Reference
from stages.common.graph.passes import collapse_views, convert_opset
from stages.common.model import sessions
from stages.quantize.auto import plan
from stages.quantize.auto.timing import call, in_turn, ratio
from stages.quantize.methods.static import fold_scales, pool_last

FULL_OPSET = 13
"""The opset in which every choice can be had."""

LEAST_OPSET = 11
"""The opset in which dynamic quantization can."""

SECONDS = 1.0

SLOWER = 0.97
"""A float model that a rewrite slows for certain to less than this has lost a fusion, which no choice makes up for."""


@dataclass(frozen=True)
class Recipe:
    """How the model is prepared: the opset to convert to, and whether chains of views are collapsed."""

    opset: int
    views: bool


def recipe(model: ir.Model, expected: Reference, params: Params) -> Recipe:
    """That of a plan that is replayed, or the one to search with: what slows the float model is left out.

    ONNX Runtime fuses attention and normalization by patterns, and some of those are of one opset only.

    Args:
        model: clean.
        expected: feeds to time it on.
        params: of all stages.
    """
    if params.quantize.method == "plan":
        planned = plan.read(Path(params.quantize.plan or ""))
        return Recipe(planned.opset, planned.views)
    if not expected.feeds:
        return Recipe(FULL_OPSET, views=False)
    threads, version = params.serving.threads, model.opset_imports.get("", FULL_OPSET)
    opset = FULL_OPSET
    if version < FULL_OPSET and _slows(model, lambda: convert_opset.apply(model, FULL_OPSET), expected, threads):
        opset = max(LEAST_OPSET, version)
    return Recipe(opset, not _slows(model, lambda: collapse_views.apply(model.clone()), expected, threads))


def _slows(model: ir.Model, rewrite: Callable[[], PassResult], expected: Reference, threads: int) -> bool:
    """Whether a rewrite makes the float model slower; one that does nothing does not."""
    try:
        result = rewrite()
        if not result.modified:
            return False
        both = [
            sessions.open_session(candidate, threads, name="the float model") for candidate in (model, result.model)
        ]
    except Exception:  # passes raise what they like; the stage applies them again, and reports it
        return False
    rounds = in_turn([call(session, expected.feeds[0]) for session in both], SECONDS)
    return ratio(rounds[:, 0], rounds[:, 1]).high < SLOWER


def rewritten(model: ir.Model, expected: Reference, recipe_: Recipe) -> tuple[ir.Model, list[Step]]:
    """The float model with rewrites that all choices gain from; one that changes an answer is undone."""
    steps = []
    rewrites: list[tuple[str, Callable[[ir.Model], bool]]] = [("scales of convolutions folded", _folded)]
    if recipe_.views:
        rewrites.append(("chains of views collapsed", lambda result: collapse_views.apply(result).modified))
    for name, rewrite in rewrites:
        result = model.clone()
        if rewrite(result):
            steps.append(Step(name, equivalence.difference(result, expected)))
            model = model if steps[-1].undone else result
    return model, steps


def _folded(model: ir.Model) -> bool:
    """What static does around any Conv, so that all choices start from one model."""
    names = {node.name or "" for node in model.graph if node.op_type == "Conv"}
    modified = [fold_scales.apply(model, names).modified, pool_last.apply(model).modified]
    return any(modified)
