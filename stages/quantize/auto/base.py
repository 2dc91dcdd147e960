"""The float model that candidates are built from: in the fastest opset, with the rewrites that do not slow it down."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.graph import equivalence
from stages.common.graph.cleaning import Pass, Step
from stages.common.graph.equivalence import Reference
from stages.common.graph.passes import collapse_views, convert_opset
from stages.common.model import sessions
from stages.quantize.auto import plan
from stages.quantize.auto.timing import call, in_turn, ratio
from stages.quantize.methods.static import fold_scales, pool_last
from stages.quantize.rewrites import look_up, read_last_state, read_parts, stack, state_shapes, two_classes, unstack

FULL_OPSET = 13
"""The lowest opset that supports every choice."""

LEAST_OPSET = 11
"""The lowest opset that supports dynamic quantization."""

SECONDS = 1.0
"""Seconds to time a rewrite."""

SLOWER = 0.97
"""A rewrite whose speed-up of the float model is certainly below this breaks a fusion, and is left out."""


def _fold(model: ir.Model) -> PassResult:
    """Apply the rewrites of static to all Conv nodes, so that all choices start from one model."""
    names = {node.name or "" for node in model.graph if node.op_type == "Conv"}
    folded, moved = fold_scales.apply(model, names), pool_last.apply(model)
    return PassResult(model, folded.modified or moved.modified)


FOLDED = ("scales of convolutions folded", _fold)

REWRITES: Mapping[str, tuple[str, Pass]] = {
    "shapes": ("constant shapes of Reshape computed", state_shapes.apply),
    "last_state": ("states of one step read from the last state", read_last_state.apply),
    "look_up": ("products with one-hot vectors replaced by lookups", look_up.apply),
    "parts": ("slices of concatenations replaced by their parts", read_parts.apply),
    "two_classes": ("Softmax of two classes replaced by Sigmoid", two_classes.apply),
    "views": ("chains of views collapsed", collapse_views.apply),
    "unstack": ("slices of a whole tensor replaced by one Split", unstack.apply),
    "stack": ("nested stacks built by one Concat", stack.apply),
}
"""Exact rewrites that ONNX Runtime lacks, in order of application, by their names in plan.json."""


@dataclass(frozen=True)
class Recipe:
    """How to prepare the model: the opset to convert to, and the names of the rewrites to apply."""

    opset: int
    rewrites: tuple[str, ...] = ()


def recipe(model: ir.Model, expected: Reference, params: Params) -> Recipe:
    """The recipe of the plan for method plan; for auto, one without the conversion and rewrites that slow the model.

    ONNX Runtime fuses attention and normalization by patterns, some of which only exist in one opset.

    Args:
        model: the clean float model.
        expected: its answers and the feeds to time it on.
        params: all params.

    Raises:
        StageError: the plan cannot be read, or names an unknown rewrite.
    """
    if params.quantize.method == "plan":
        planned = plan.read(Path(params.quantize.plan or ""))
        if strangers := [name for name in planned.rewrites if name not in REWRITES]:
            raise StageError(f"{planned.place}: rewrites names {strangers[0]!r}; allowed: {', '.join(REWRITES)}.")
        return Recipe(planned.opset, planned.rewrites)
    if not expected.feeds:
        return Recipe(FULL_OPSET)
    threads, version = params.serving.threads, model.opset_imports.get("", FULL_OPSET)
    opset = FULL_OPSET
    if version < FULL_OPSET:
        converted = _not_slower(model, lambda: convert_opset.apply(model, FULL_OPSET), expected, threads)
        opset, model = (max(LEAST_OPSET, version), model) if converted is None else (FULL_OPSET, converted)
    useful = []
    for name, (_, apply) in REWRITES.items():
        faster = _not_slower(model, partial(_on_a_copy, apply, model), expected, threads)
        if faster is not None and faster is not model:
            useful.append(name)
            model = faster
    return Recipe(opset, tuple(useful))


def _on_a_copy(apply: Pass, model: ir.Model) -> PassResult:
    return apply(model.clone())


def _not_slower(
    model: ir.Model, rewrite: Callable[[], PassResult], expected: Reference, threads: int
) -> ir.Model | None:
    """The rewritten model; None if it is slower, the model itself if the rewrite does nothing or fails."""
    try:
        result = rewrite()
        if not result.modified:
            return model
        both = [sessions.open_session(version, threads, name="the float model") for version in (model, result.model)]
    except Exception:  # a pass can raise anything; the stage applies it again, and reports the error
        return model
    rounds = in_turn([call(session, expected.feeds[0]) for session in both], SECONDS)
    return None if ratio(rounds[:, 0], rounds[:, 1]).high < SLOWER else result.model


def rewritten(model: ir.Model, expected: Reference, recipe_: Recipe) -> tuple[ir.Model, list[Step]]:
    """The float model with the rewrites of a recipe, and the steps; a rewrite that changes the answers is undone."""
    steps = []
    for name, apply in (FOLDED, *(REWRITES[name] for name in recipe_.rewrites)):
        result = apply(model.clone())
        if result.modified:
            steps.append(Step(name, equivalence.difference(result.model, expected)))
            model = model if steps[-1].undone else result.model
    return model, steps
