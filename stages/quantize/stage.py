"""The stage: read the fp32 model, refuse, clean, quantize and check it, and put the result in place."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.data import feeding
from stages.common.data.evaldata import EvalData
from stages.common.graph import equivalence
from stages.common.graph.cleaning import Step, clean
from stages.common.graph.equivalence import Reference
from stages.common.graph.passes import convert_opset, name_nodes, widen_float16
from stages.common.graph.weights import WeightedNode, parameters_in_attributes, weighted_nodes
from stages.common.model import model_file, sessions
from stages.common.model.sessions import Feed
from stages.quantize import check, methods, refusal, saturation, trial
from stages.quantize.auto import base, mix, plan
from stages.quantize.auto.find import Found, find
from stages.quantize.auto.judge import Judge, calibration_feeds
from stages.quantize.methods.static.ranges import Known
from stages.quantize.outcome import NodeOutcome
from stages.quantize.saturation import Pairs
from stages.quantize.selection import select

CHECK_FEEDS = 8
"""How many feeds the checks run: enough to see a broken model, too few to cost anything."""

WIDENED = "float16 made float32"


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
        found: what method auto found.
    """

    model: ir.Model | None
    nodes: Sequence[WeightedNode]
    outcomes: Mapping[str, NodeOutcome]
    steps: Sequence[Step]
    quantizable: frozenset[str]
    pairs: Mapping[str, Pairs]
    in_attributes: Sequence[str]
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
    made = quantize(fp32, EvalData(), params, paths.FP32_MODEL.as_posix())
    with model_file.staged(made.model or fp32, paths.INT8_MODEL) as written:
        sessions.open_session(written)
    sizes = [model_file.size_mb(path) for path in (paths.FP32_MODEL, paths.INT8_MODEL)]
    return QuantizeResult(made, params.quantize.method, *sizes)


def quantize(model: ir.Model, data: EvalData, whole: Params, name: str) -> Quantization:
    """Quantize a model.

    Args:
        model: the float model; not changed.
        data: the search split is used, for checks and calibration.
        whole: the params; methods other than auto read the section `quantize` alone.
        name: what to call the model in an error.

    Raises:
        StageError: the model must not or cannot be quantized, or auto finds nothing that passes.
    """
    params = whole.quantize
    refusal.refuse(model, name)
    refusal.refuse_non_finite_weights(model, name)
    session = sessions.open_session(model, name=name)
    feeding.check_fit(session, data.inputs, data.layout)
    batch = feeding.feed_batch(session, data.layout, wanted=1)
    expected = equivalence.reference(session, list(_feeds(data, batch, CHECK_FEEDS * batch)), name)
    del session
    cleaned, steps = clean(model, expected)
    selected, _ = select(weighted_nodes(cleaned), params)
    needed = max((needed_opset(each) for each in selected), default=1)
    planned = plan.read(Path(params.plan)) if params.method == "plan" and params.plan else None
    if params.method == "auto":
        needed = base.fastest_opset(cleaned, expected, whole.serving.threads)
    elif planned is not None:
        needed = planned.opset
    prepared, more = prepare(cleaned, expected, needed)
    refusal.refuse_non_finite_weights(prepared, name)
    if params.method in ("auto", "plan"):
        prepared, folded = base.folded(prepared, expected)
        more += folded
    nodes = weighted_nodes(prepared)
    selected, outcomes = select(nodes, params)
    feeds = calibration_feeds if params.method in ("auto", "plan") else _feeds
    calibration = Known(partial(feeds, data, batch, params.calibration.samples), params.calibration.method)
    make = partial(methods.quantize, prepared, calibration=calibration)
    in_4_bits = any(assigned.params.weight_type.endswith("4") for assigned in selected)
    fault = partial(check.fault, expected=expected, least_cosine=check.SANE_IN_4_BITS if in_4_bits else check.SANE)
    found = None
    if params.method == "auto":
        choose = partial(mix.mixed, prepared, selected, calibration=calibration)
        found = find(prepared, selected, Judge(model, data, whole, name), whole, make=choose, fault=fault)
        quantized, made = found.model, found.outcomes
    elif planned is not None:
        planned.check(nodes)
        quantized, made = mix.mixed(prepared, selected, planned.choices, calibration=calibration)
        if problem := fault(quantized):
            raise StageError(f"The model of {params.plan} cannot be published: {problem}. Run method auto again.")
        if not any(outcome.quantized for outcome in made.values()):
            quantized = None
    else:
        quantized, made = trial.most_that_passes(make, selected, fault)
    known = methods.scope(params.method).OP_TYPES
    quantizable = {assigned.name for assigned in selected} | {node.name for node in nodes if node.op_type in known}
    pairs = saturation.of_model(quantized) if quantized is not None else {}
    in_attributes = parameters_in_attributes(prepared)
    return Quantization(
        quantized, nodes, outcomes | made, [*steps, *more], frozenset(quantizable), pairs, in_attributes, found
    )


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


def _feeds(data: EvalData, batch: int, samples: int) -> Iterator[Feed]:
    """The first `samples` of the search split in feeds of `batch`; a tail that does not fill one is left out."""
    indices = data.indices("search")
    if not len(indices):  # a single sample belongs to the judge; nothing is chosen by it here
        indices = data.indices("judge")
    if data.layout == "samples" and len(indices) < batch:
        raise StageError(
            f"The evaluation data have {len(indices)} samples to search on, and the model takes {batch} at once. "
            "Give at least four times as many samples as that."
        )
    for chunk in data.batches(indices[: max(batch, samples)], batch):
        if data.layout == "feeds" or len(chunk.indices) == batch:
            yield chunk.feed
