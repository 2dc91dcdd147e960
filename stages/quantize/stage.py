"""The stage: read the fp32 model, refuse, clean, quantize and check it, and put the result in place."""

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
from stages.common.graph import equivalence
from stages.common.graph.cleaning import Step, clean
from stages.common.graph.equivalence import Reference
from stages.common.graph.passes import convert_opset, name_nodes, widen_float16
from stages.common.graph.weights import WeightedNode, parameters_in_attributes, weighted_nodes
from stages.common.model import model_file, sessions
from stages.common.model.sessions import Feed
from stages.quantize import check, methods, refusal, saturation, trial
from stages.quantize.auto import base
from stages.quantize.auto.base import Recipe
from stages.quantize.auto.find import Found
from stages.quantize.auto.probe import Sensitivity
from stages.quantize.auto.run import made as run_auto
from stages.quantize.auto.run import ranked
from stages.quantize.feeds import SearchFeeds, search_feeds
from stages.quantize.outcome import NodeOutcome, kept
from stages.quantize.saturation import Pairs
from stages.quantize.selection import select

CHECK_FEEDS = 8
"""How many feeds the checks run: enough to see a broken model, too few to cost anything."""

UNSEEN_FEEDS = 32
"""How many feeds the outputs of a static model are watched on."""

LARGEST_SHARE = 1.0
"""Size of the quantized file over that of the float one from which on the float model is kept."""

WIDENED = "float16 made float32"

MADE_UP = (
    "There are no evaluation data, so that the model was checked on made-up inputs, and no answers were judged. "
    "Run export with data of yours for that."
)


@dataclass(frozen=True)
class Quantization:
    """What was made of a model.

    Attributes:
        model: the quantized model, or None where nothing was quantized.
        nodes: every node with a weight.
        outcomes: what became of each of them, by name.
        steps: what was cleaned and rewritten.
        quantizable: names of the nodes that the method has an INT8 form for.
        pairs: of the quantized nodes, the pairs of weights that can saturate without VNNI.
        in_attributes: the operators that keep their parameters in attributes, out of the reach of INT8.
        notes: sentences on what else a reader must know.
        found: what method auto found.
    """

    model: ir.Model | None
    nodes: Sequence[WeightedNode]
    outcomes: Mapping[str, NodeOutcome]
    steps: Sequence[Step]
    quantizable: frozenset[str]
    pairs: Mapping[str, Pairs]
    in_attributes: Sequence[str]
    notes: Sequence[str]
    found: Found | None = None


@dataclass(frozen=True)
class QuantizeResult:
    """What the stage made: the quantization, the method, and the size of both files in MB."""

    made: Quantization
    method: str
    fp32_mb: float
    int8_mb: float


def run(params: Params) -> QuantizeResult:
    """Write the quantized model.

    Raises:
        StageError: the model must not or cannot be quantized.
    """
    fp32 = model_file.read(paths.FP32_MODEL, made_by="export")
    data = EvalData() if paths.EVAL.exists() else None
    made = quantize(fp32, data, params, paths.FP32_MODEL.as_posix())
    with model_file.staged(made.model or fp32, paths.INT8_MODEL) as written:
        if made.model is None:  # to the byte: written anew it may be larger; a large model is written anew after this
            shutil.copyfile(paths.FP32_MODEL, written)
        sessions.open_session(written)
    sizes = [model_file.size_mb(path) for path in (paths.FP32_MODEL, paths.INT8_MODEL)]
    return QuantizeResult(made, params.quantize.method, *sizes)


def quantize(model: ir.Model, data: EvalData | None, whole: Params, name: str) -> Quantization:
    """Quantize a model.

    Args:
        model: the float model; not changed.
        data: the search split is used, for checks and calibration; None for made-up inputs.
        whole: the params; methods other than auto read the section `quantize` alone.
        name: what to call the model in an error.

    Raises:
        StageError: the model must not or cannot be quantized, or auto finds nothing that passes.
    """
    params = whole.quantize
    ready = _ready(model, data, whole, name)
    prepared, nodes, selected, feeds = ready.model, ready.nodes, ready.selected, ready.feeds
    outcomes, steps = ready.outcomes, ready.steps
    _require_data(data, selected)
    make = partial(methods.quantize, prepared, calibration=lambda: feeds(params.calibration.samples))
    in_4_bits = any(assigned.params.weight_type.endswith("4") for assigned in selected)
    fault = partial(
        check.fault, expected=ready.expected, least_cosine=check.SANE_IN_4_BITS if in_4_bits else check.SANE
    )
    found = None
    if ready.recipe is not None:
        quantized, made, found = run_auto(
            model, prepared, nodes, selected, data=data, params=whole, fault=fault, name=name, recipe=ready.recipe
        )
    else:
        quantized, made = trial.most_that_passes(make, selected, fault)
    outcomes = {**outcomes, **made}
    if quantized is not None and (grown := _growth(model, quantized, steps, _twice(model, ready, quantized, outcomes))):
        quantized = None
        outcomes = {name: kept(grown) if outcome.quantized else outcome for name, outcome in outcomes.items()}
    notes = [] if data is not None else [MADE_UP]
    if found is not None and found.reason:
        notes.append(f"Float is the answer: {found.reason}.")
    if quantized is not None and any(each.params.method == "static" for each in selected):
        notes += check.collapsed(quantized, prepared, _unseen(feeds, params.calibration.samples))
    known = methods.scope(params.method).OP_TYPES
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
        found=found,
    )


def sensitivity(params: Params) -> Sequence[Sensitivity]:
    """The error that each choice of method auto adds at each node by itself; nothing is written.

    Raises:
        StageError: the model cannot be quantized, or there are no evaluation data.
    """
    whole = params.model_copy(update={"quantize": params.quantize.model_copy(update={"method": "auto"})})
    name = paths.FP32_MODEL.as_posix()
    model = model_file.read(paths.FP32_MODEL, made_by="export")
    data = EvalData() if paths.EVAL.exists() else None
    ready = _ready(model, data, whole, name)
    return ranked(model, ready.model, ready.selected, data=data, params=whole, name=name)


@dataclass(frozen=True)
class _Ready:
    """The float model as its nodes are quantized in, and what was found out on the way."""

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
    needed = max((needed_opset(each) for each in selected), default=1) if recipe is None else recipe.opset
    prepared, more = prepare(cleaned, expected, needed)
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
            f"quantize.method static finds the ranges of activations (of {static}, for one) on samples, and "
            f"{paths.EVAL.as_posix()} is missing. Run export first."
        )


def _growth(model: ir.Model, quantized: ir.Model, steps: Sequence[Step], twice: int) -> str:
    """Why the float model is kept where the quantized one would take more room; empty where it does not.

    `twice` are the bytes of the float values, of weights in INT8, that stay in the file.
    """
    before, after = model_file.stored_bytes(model), model_file.stored_bytes(quantized)
    if after < LARGEST_SHARE * before:
        return ""
    if any(step.name == WIDENED and not step.undone for step in steps):
        cause = "what stays float was float16"
    elif after - twice < before:
        cause = "weights that nodes which stay float read as well would be stored twice"
    else:
        cause = "scales and added nodes outweigh what its weights save"
    return f"quantized, the file would grow from {before / 1e6:.4g} to {after / 1e6:.4g} MB: {cause}"


def _twice(model: ir.Model, ready: "_Ready", quantized: ir.Model, outcomes: Mapping[str, NodeOutcome]) -> int:
    """Bytes of the float values, of weights in INT8, that stay in the file, by name or as what computed them."""
    taken = {
        weight.name: weight.nbytes for node in ready.nodes if outcomes[node.name].quantized for weight in node.weights
    }
    named = sum(size for name, size in taken.items() if name in quantized.graph.initializers)
    computed = model_file.weight_bytes(ready.model) - model_file.weight_bytes(model)
    return named + max(0, computed)


def _unseen(feeds: SearchFeeds, calibrated: int) -> list[Feed]:
    """Feeds that did not calibrate; the first ones where there are no others."""
    seen = sum(1 for _ in feeds(calibrated))
    later = list(islice(feeds(sys.maxsize), seen, seen + UNSEEN_FEEDS))
    return later or list(islice(feeds(calibrated), UNSEEN_FEEDS))


def needed_opset(assigned: methods.Assignment) -> int:
    """The opset that the operators of a quantized node need."""
    return methods.scope(assigned.params.method).opset(assigned.params)


def prepare(model: ir.Model, expected: Reference, opset: int) -> tuple[ir.Model, list[Step]]:
    """The clean model in the opset and the float type that quantized operators need; undone where answers change."""
    steps = []
    name = f"opset converted to {opset}"
    try:
        result = convert_opset.apply(model, opset)
    except Exception as error:  # onnx raises what it likes; a conversion that fails is not applied
        steps.append(Step(name, " ".join(str(error).split())[:200] or type(error).__name__))
    else:
        if result.modified:
            steps.append(Step(name, equivalence.difference(result.model, expected)))
            model = model if steps[-1].undone else result.model
            name_nodes.apply(model)  # the converter leaves those that it adds without a name
    result = widen_float16.apply(model.clone())
    if result.modified:
        # Float16 rounds coarsely, so that the float32 model need only be sane beside it.
        steps.append(Step(WIDENED, check.fault(result.model, expected)))
        model = model if steps[-1].undone else result.model
    return model, steps
