"""The stage: read the fp32 model, quantize and check it, and publish the result."""

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
from stages.common.graph.cleaning import Step
from stages.common.graph.weights import WeightedNode, parameters_in_attributes
from stages.common.model import model_file, sessions
from stages.common.model.sessions import Feed
from stages.quantize import check, methods, saturation, trial
from stages.quantize.auto.find import SearchResult
from stages.quantize.auto.probe import Sensitivity
from stages.quantize.auto.run import quantize as run_auto
from stages.quantize.auto.run import sensitivities
from stages.quantize.feeds import SearchFeeds
from stages.quantize.growth import growth
from stages.quantize.methods import dynamic
from stages.quantize.methods.static import ranges
from stages.quantize.outcome import NodeOutcome, kept
from stages.quantize.preparation import Prepared, prepare
from stages.quantize.saturation import Pairs

UNSEEN_FEEDS = 32
"""Number of feeds on which the outputs of a static model are checked for lost ranges."""

GENERATED_INPUTS = (
    "The evaluation data is missing, so the model was only checked on generated inputs. Run export with your own data "
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
    prepared = prepare(model, data, whole, name)
    _require_data(data, prepared.selected)
    built = _build(model, prepared, data, whole, name)
    quantized, outcomes = built.model, {**prepared.outcomes, **built.outcomes}
    if quantized is not None and (reason := growth(model, prepared, quantized, outcomes)):
        quantized = None
        outcomes = {name: kept(reason) if outcome.quantized else outcome for name, outcome in outcomes.items()}
    notes = [] if data is not None else [GENERATED_INPUTS]
    notes += built.notes
    if quantized is not None and any(assigned.params.method == "static" for assigned in prepared.selected):
        unseen = _unseen(prepared.feeds, params.calibration.samples)
        notes += check.collapsed_outputs(quantized, prepared.model, unseen)
    notes += _without_row_scales(prepared.nodes, outcomes)
    known = methods.op_types(params.method)
    return Quantization(
        model=quantized,
        nodes=prepared.nodes,
        outcomes=outcomes,
        steps=prepared.steps,
        quantizable=frozenset(assigned.name for assigned in prepared.selected)
        | {node.name for node in prepared.nodes if node.op_type in known},
        pairs=saturation.of_model(quantized) if quantized is not None else {},
        in_attributes=parameters_in_attributes(prepared.model),
        notes=notes,
        search=built.search,
    )


def sensitivity(params: Params) -> Sequence[Sensitivity]:
    """The error that each choice of method auto adds at each node. Writes nothing.

    Raises:
        StageError: the model cannot be quantized, or the evaluation data is missing.
    """
    whole = params.model_copy(update={"quantize": params.quantize.model_copy(update={"method": "auto"})})
    name = paths.FP32_MODEL.as_posix()
    model = model_file.read(paths.FP32_MODEL, made_by="export")
    data = EvalData() if paths.EVAL.exists() else None
    prepared = prepare(model, data, whole, name)
    return sensitivities(model, prepared.model, prepared.selected, data=data, params=whole, name=name)


def _require_data(data: EvalData | None, selected: Sequence[methods.Assignment]) -> None:
    static = next((assigned.name for assigned in selected if assigned.params.method == "static"), None)
    if data is None and static is not None:
        raise StageError(
            f"quantize.method static calibrates the activations of {static} on samples, but "
            f"{paths.EVAL.as_posix()} is missing. Run export first."
        )


@dataclass(frozen=True)
class _Built:
    """The quantized model, or None; the outcomes of the selected nodes; notes; and the search of method auto."""

    model: ir.Model | None
    outcomes: Mapping[str, NodeOutcome]
    notes: Sequence[str]
    search: SearchResult | None = None


def _build(source: ir.Model, prepared: Prepared, data: EvalData | None, whole: Params, name: str) -> _Built:
    """Quantize the selected nodes: as auto finds best, as a plan says, or as many as keep the model intact."""
    selected = prepared.selected
    in_4_bits = any(assigned.params.weight_type.endswith("4") for assigned in selected)
    limit = check.MIN_COSINE_4_BIT if in_4_bits else check.MIN_COSINE
    if prepared.recipe is not None:
        model, outcomes, search = run_auto(
            source,
            prepared.model,
            prepared.nodes,
            selected,
            data=data,
            params=whole,
            fault=partial(check.fault, expected=prepared.expected, min_cosine=limit),
            name=name,
            recipe=prepared.recipe,
        )
        reason = search.reason if search is not None else ""
        return _Built(model, outcomes, [f"The model stays fp32: {reason}."] if reason else [], search)
    settings = whole.quantize.calibration
    calibration = ranges.Known(lambda: prepared.feeds(settings.samples), settings.method)
    make = partial(methods.quantize, prepared.model, calibration=calibration)
    examine = partial(check.examine, expected=prepared.expected, min_cosine=limit)
    model, outcomes = trial.most_that_passes(make, selected, examine)
    notes = trial.portable_note(make, selected, examine, outcomes)
    return _Built(model, outcomes, [*notes, *trial.order_note(prepared.model, outcomes)])


def _without_row_scales(nodes: Sequence[WeightedNode], outcomes: Mapping[str, NodeOutcome]) -> list[str]:
    """A note on quantized nodes that keep a scale per tensor although one per row was requested."""
    per_tensor = {node.op_type for node in nodes if dynamic.PER_TENSOR in outcomes[node.name].how}
    if not per_tensor:
        return []
    return [
        f"Some quantized nodes ({', '.join(sorted(per_tensor))}) keep one activation scale per tensor despite "
        "quantize.activation_scale row, so answers may depend on the batch; metrics/details/nodes.csv lists them."
    ]


def _unseen(feeds: SearchFeeds, calibrated: int) -> list[Feed]:
    """Feeds that calibration did not use; if it used all, its first feeds."""
    seen = sum(1 for _ in feeds(calibrated))
    later = list(islice(feeds(sys.maxsize), seen, seen + UNSEEN_FEEDS))
    return later or list(islice(feeds(calibrated), UNSEEN_FEEDS))
