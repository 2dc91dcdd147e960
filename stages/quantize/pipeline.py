"""From the float model to the quantized one: refuse, normalise, quantize, check."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from onnx import ModelProto

from stages.common.base.errors import StageError
from stages.common.base.params import Quantize
from stages.common.data import feeding
from stages.common.data.evaldata import EvalData
from stages.common.model import sessions
from stages.common.model.sessions import Feed
from stages.quantize import check, methods, refusal, saturation, trial
from stages.quantize.decision import Decision
from stages.quantize.inventory import WeightedNode, parameters_in_attributes, weighted_nodes
from stages.quantize.normalise import Step, normalise
from stages.quantize.saturation import Pairs
from stages.quantize.selection import select

CHECK_FEEDS = 8
"""How many feeds the checks run: enough to see a broken model, too few to cost anything."""


@dataclass(frozen=True)
class Result:
    """What the stage made.

    Attributes:
        model: the quantized model, or None where nothing was quantized.
        nodes: every node with a weight.
        decisions: what became of each of them, by name.
        steps: what was normalised.
        quantizable: names of the nodes that the method has an INT8 form for.
        pairs: of the quantized nodes, the pairs of weights that can saturate without VNNI.
        in_attributes: the operators that keep their parameters in attributes, out of the reach of INT8.
    """

    model: ModelProto | None
    nodes: Sequence[WeightedNode]
    decisions: dict[str, Decision]
    steps: Sequence[Step]
    quantizable: frozenset[str]
    pairs: Mapping[str, Pairs]
    in_attributes: Sequence[str]


def quantize(model: ModelProto, data: EvalData, params: Quantize, name: str) -> Result:
    """Quantize `model`.

    Args:
        model: the float model; not changed.
        data: the search split is used, for checks and calibration.
        params: the section `quantize`.
        name: what to call the model in an error.

    Raises:
        StageError: the model must not or cannot be quantized.
    """
    refusal.refuse(model, name)
    refusal.refuse_non_finite_weights(model, name)
    session = sessions.open_session(model, name=name)
    feeding.check_fit(session, data.inputs, data.layout)
    batch = feeding.feed_batch(session, data.layout, wanted=1)
    expected = check.reference(session, list(_feeds(data, batch, CHECK_FEEDS * batch)), name)
    del session
    normal, steps = normalise(model, expected)
    refusal.refuse_non_finite_weights(normal, name)
    method = methods.by_name(params.method)
    nodes = weighted_nodes(normal)
    selected, decisions = select(nodes, method, params)
    calibration = partial(_feeds, data, batch, params.calibration.samples)
    attempt = partial(method.quantize, normal, params=params, calibration=calibration)
    floor = check.SANE_IN_4_BITS if params.weight_type in ("QInt4", "QUInt4") else check.SANE
    fault = partial(check.fault, expected=expected, least_cosine=floor)
    quantized, made = trial.most_that_passes(attempt, selected, fault)
    quantizable = frozenset(node.name for node in nodes if node.op_type in method.OP_TYPES)
    pairs = saturation.of_model(quantized) if quantized is not None else {}
    return Result(quantized, nodes, decisions | made, steps, quantizable, pairs, parameters_in_attributes(normal))


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
    for each in data.batches(indices[: max(batch, samples)], batch):
        if data.layout == "feeds" or len(each.indices) == batch:
            yield each.feed
