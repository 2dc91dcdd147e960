"""The stage: read the fp32 model, clean, quantize and check it, and publish the result."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import onnx_ir as ir

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.data.evaldata import EvalData
from stages.common.graph import equivalence, refusal
from stages.common.graph.cleaning import Step, clean
from stages.common.graph.equivalence import Reference
from stages.common.graph.passes import convert_opset, name_nodes, widen_float16
from stages.common.graph.weights import WeightedNode, parameters_in_attributes, weighted_nodes
from stages.common.model import model_file, sessions
from stages.common.model.sessions import Feed
from stages.quantize import check, methods, saturation, trial
from stages.quantize.auto import base
from stages.quantize.auto.base import Recipe
from stages.quantize.auto.find import SearchResult
from stages.quantize.auto.probe import Sensitivity
from stages.quantize.auto.run import quantize as run_auto
from stages.quantize.auto.run import sensitivities
from stages.quantize.feeds import SearchFeeds, search_feeds
from stages.quantize.methods import dynamic
from stages.quantize.methods.static import ranges
from stages.quantize.outcome import NodeOutcome, kept
from stages.quantize.saturation import Pairs
from stages.quantize.selection import select

CHECK_FEEDS = 8
"""Number of feeds that the checks run: enough to notice a broken model, few enough to be fast."""

UNSEEN_FEEDS = 32
"""Number of feeds on which the outputs of a static model are checked for lost ranges."""

LARGEST_SHARE = 1.0
"""If the quantized file is at least this share of the size of the float file, the float model is kept."""

WIDENED = "float16 converted to float32"

GENERATED_INPUTS = (
    "There are no evaluation data, so the model was only checked on generated inputs. Run export with your own data "
    "to have its answers judged."
)


@dataclass(frozen=True)
class Quantization:
    """A quantized model and its evidence.

    Attributes:
        model: the quantized model, or None if nothing was quantized.
        nodes: every node with a weight.
        outcomes: the outcome of each node, by name.
        steps: the steps of cleaning and rewriting.
        quantizable: names of the nodes whose operators the method supports.
        pairs: how many pairs of weights can saturate without VNNI, by quantized node.
        in_attributes: operators that keep their parameters in attributes, which have no INT8 form.
        notes: sentences on what else a reader should know.
        search: the result of method auto's search; None for other methods.
    """

    model: ir.Model | None
    nodes: Sequence[WeightedNode]
    outcomes: Mapping[str, NodeOutcome]
    steps: Sequence[Step]
    quantizable: frozenset[str]
    pairs: Mapping[str, Pairs]
    in_attributes: Sequence[str]
    notes: Sequence[str]
    search: SearchResult | None = None


@dataclass(frozen=True)
class QuantizeResult:
    """The quantization, the method, and the size of both files in MB."""

    quantization: Quantization
    method: str
    fp32_mb: float
    int8_mb: float


def run(params: Params) -> QuantizeResult:
    """Quantize the fp32 model, and write the result.

    Raises:
        StageError: the model must not or cannot be quantized.
    """
    fp32 = model_file.read(paths.FP32_MODEL, made_by="export")
    data = EvalData() if paths.EVAL.exists() else None
    quantization = quantize(fp32, data, params, paths.FP32_MODEL.as_posix())
    with model_file.staged(quantization.model or fp32, paths.INT8_MODEL) as written:
        if quantization.model is None:  # a copy, as rewriting may enlarge the file; large models are rewritten on exit
            shutil.copyfile(paths.FP32_MODEL, written)
        sessions.open_session(written)
    sizes = [model_file.size_mb(path) for path in (paths.FP32_MODEL, paths.INT8_MODEL)]
    return QuantizeResult(quantization, params.quantize.method, *sizes)


def quantize(model: ir.Model, data: EvalData | None, whole: Params, name: str) -> Quantization:
    """Quantize a model.

    Args:
        model: the float model; not changed.
        data: evaluation data, whose search split is used for checks and calibration; None for generated inputs.
        whole: all params; methods other than auto only read the section `quantize`.
        name: what to call the model in errors.

    Raises:
        StageError: the model must not or cannot be quantized, or a plan does not fit it.
    """
    params = whole.quantize
    ready = _ready(model, data, whole, name)
    prepared, nodes, selected, feeds = ready.model, ready.nodes, ready.selected, ready.feeds
    outcomes, steps = ready.outcomes, ready.steps
    _require_data(data, selected)
    calibration = ranges.Known(lambda: feeds(params.calibration.samples), params.calibration.method)
    make = partial(methods.quantize, prepared, calibration=calibration)
    in_4_bits = any(assigned.params.weight_type.endswith("4") for assigned in selected)
    limit = check.MIN_COSINE_4_BIT if in_4_bits else check.MIN_COSINE
    search, notes = None, [] if data is not None else [GENERATED_INPUTS]
    if ready.recipe is not None:
        fault = partial(check.fault, expected=ready.expected, min_cosine=limit)
        quantized, changed, search = run_auto(
            model, prepared, nodes, selected, data=data, params=whole, fault=fault, name=name, recipe=ready.recipe
        )
    else:
        examine = partial(check.examine, expected=ready.expected, min_cosine=limit)
        quantized, changed = trial.most_that_passes(make, selected, examine)
        notes += trial.portable_note(make, selected, examine, changed) + trial.order_note(prepared, changed)
    outcomes = {**outcomes, **changed}
    if quantized is not None:
        twice = _stored_twice(model, ready, quantized, outcomes)
        if growth := _growth(model, quantized, steps, twice):
            quantized = None
            outcomes = {name: kept(growth) if outcome.quantized else outcome for name, outcome in outcomes.items()}
    if search is not None and search.reason:
        notes.append(f"The model stays fp32: {search.reason}.")
    if quantized is not None and any(assigned.params.method == "static" for assigned in selected):
        notes += check.collapsed_outputs(quantized, prepared, _unseen(feeds, params.calibration.samples))
    notes += _without_row_scales(nodes, outcomes)
    known = methods.op_types(params.method)
    return Quantization(
        model=quantized,
        nodes=nodes,
        outcomes=outcomes,
        steps=steps,
        quantizable=frozenset(assigned.name for assigned in selected)
        | {node.name for node in nodes if node.op_type in known},
        pairs=saturation.of_model(quantized) if quantized is not None else {},
        in_attributes=parameters_in_attributes(prepared),
        notes=notes,
        search=search,
    )


def _without_row_scales(nodes: Sequence[WeightedNode], outcomes: Mapping[str, NodeOutcome]) -> list[str]:
    """A note on quantized nodes that keep a scale per tensor although one per row was requested."""
    per_tensor = {node.op_type for node in nodes if dynamic.PER_TENSOR in outcomes[node.name].how}
    if not per_tensor:
        return []
    return [
        f"Some quantized nodes ({', '.join(sorted(per_tensor))}) keep one activation scale per tensor despite "
        "quantize.activation_scale row, so answers may depend on the batch; metrics/details/nodes.csv lists them."
    ]


def sensitivity(params: Params) -> Sequence[Sensitivity]:
    """The error that each choice of method auto adds at each node. Writes nothing.

    Raises:
        StageError: the model cannot be quantized, or there are no evaluation data.
    """
    whole = params.model_copy(update={"quantize": params.quantize.model_copy(update={"method": "auto"})})
    name = paths.FP32_MODEL.as_posix()
    model = model_file.read(paths.FP32_MODEL, made_by="export")
    data = EvalData() if paths.EVAL.exists() else None
    ready = _ready(model, data, whole, name)
    return sensitivities(model, ready.model, ready.selected, data=data, params=whole, name=name)


@dataclass(frozen=True)
class _Ready:
    """The float model prepared for quantization, with its nodes, steps and feeds."""

    model: ir.Model
    nodes: Sequence[WeightedNode]
    selected: Sequence[methods.Assignment]
    outcomes: Mapping[str, NodeOutcome]
    steps: Sequence[Step]
    expected: Reference
    feeds: SearchFeeds
    recipe: Recipe | None


def _ready(model: ir.Model, data: EvalData | None, whole: Params, name: str) -> _Ready:
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
    prepared, more = prepare(cleaned, expected, max(needed, default=1) if recipe is None else recipe.opset)
    refusal.refuse_non_finite_weights(prepared, name)
    if recipe is not None:
        prepared, rewrites = base.rewritten(prepared, expected, recipe)
        more += rewrites
    nodes = weighted_nodes(prepared)
    selected, outcomes = select(nodes, params)
    return _Ready(prepared, nodes, selected, outcomes, [*steps, *more], expected, feeds, recipe)


def _require_data(data: EvalData | None, selected: Sequence[methods.Assignment]) -> None:
    static = next((assigned.name for assigned in selected if assigned.params.method == "static"), None)
    if data is None and static is not None:
        raise StageError(
            f"quantize.method static calibrates the activations of {static} on samples, but "
            f"{paths.EVAL.as_posix()} is missing. Run export first."
        )


def _growth(model: ir.Model, quantized: ir.Model, steps: Sequence[Step], twice: int) -> str:
    """Why the quantized file would not be smaller than the float one; empty if it is smaller.

    Args:
        model: the float model.
        quantized: the quantized model.
        steps: what was done to the float model first.
        twice: bytes of the weights that the quantized model stores both in INT8 and in float.
    """
    before, after = model_file.stored_bytes(model), model_file.stored_bytes(quantized)
    if after < LARGEST_SHARE * before:
        return ""
    if any(step.name == WIDENED and not step.undone for step in steps):
        cause = "weights that stay float were float16"
    elif after - twice < before:
        cause = "weights that float nodes also read would be stored twice"
    else:
        cause = "scales and added nodes take more than INT8 weights save"
    return f"quantized, the file would grow from {before / 1e6:.4g} to {after / 1e6:.4g} MB: {cause}"


def _stored_twice(model: ir.Model, ready: _Ready, quantized: ir.Model, outcomes: Mapping[str, NodeOutcome]) -> int:
    """Bytes of weights stored in INT8 and also in float, under their own names or as the constants that give them."""
    taken = {
        weight.name: weight.nbytes for node in ready.nodes if outcomes[node.name].quantized for weight in node.weights
    }
    named = sum(size for name, size in taken.items() if name in quantized.graph.initializers)
    computed = model_file.weight_bytes(ready.model) - model_file.weight_bytes(model)
    return named + max(0, computed)


def _unseen(feeds: SearchFeeds, calibrated: int) -> list[Feed]:
    """Feeds that calibration did not use; the first calibration feeds if it used all."""
    seen = sum(1 for _ in feeds(calibrated))
    later = list(islice(feeds(sys.maxsize), seen, seen + UNSEEN_FEEDS))
    return later or list(islice(feeds(calibrated), UNSEEN_FEEDS))


def prepare(model: ir.Model, expected: Reference, opset: int) -> tuple[ir.Model, list[Step]]:
    """Convert the clean model to the opset and the float type that quantized operators need.

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
