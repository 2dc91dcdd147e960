"""From the float model to the quantized one: refuse, normalise, quantize, check."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from onnx import ModelProto

from stages.common.evaldata import EvalData
from stages.common.params import Quantize
from stages.common.sessions import Feed
from stages.quantize import check, methods, refusal
from stages.quantize.decision import Decision, kept
from stages.quantize.inventory import WeightedNode, weighted_nodes
from stages.quantize.methods import Calibration
from stages.quantize.normalise import Step, normalise
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
    """

    model: ModelProto | None
    nodes: Sequence[WeightedNode]
    decisions: dict[str, Decision]
    steps: Sequence[Step]
    quantizable: frozenset[str]


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
    calibration = _calibration(model, data, params.calibration.samples)
    expected = check.reference(model, _first(calibration(), CHECK_FEEDS), name)
    normal, steps = normalise(model, expected)
    refusal.refuse_non_finite_weights(normal, name)
    method = methods.by_name(params.method)
    nodes = weighted_nodes(normal)
    selected, decisions = select(nodes, method, params)
    attempt = partial(method.quantize, normal, params=params, calibration=calibration)
    quantized, made = _checked(attempt, selected, expected)
    quantizable = frozenset(node.name for node in nodes if node.op_type in method.OP_TYPES)
    return Result(quantized, nodes, decisions | made, steps, quantizable)


def _checked(
    attempt: Callable[[Sequence[WeightedNode]], tuple[ModelProto, dict[str, Decision]]],
    nodes: Sequence[WeightedNode],
    expected: check.Reference,
) -> tuple[ModelProto | None, dict[str, Decision]]:
    quantized, decisions = attempt(nodes)
    if not any(decision.quantized for decision in decisions.values()):
        return None, decisions
    problem = check.fault(quantized, expected, "the quantized model")
    if not problem:
        return quantized, decisions
    return None, {name: kept(problem) if each.quantized else each for name, each in decisions.items()}


def _calibration(model: ModelProto, data: EvalData, samples: int) -> Calibration:
    indices = data.indices("search")
    if len(indices) == 0:  # a single sample: it belongs to the judge, and nothing is chosen by it
        indices = data.indices("judge")
    size = _fixed_batch(model)

    def feeds() -> Iterator[Feed]:
        for batch in data.batches(indices[:samples], size):
            if data.layout == "feeds" or len(batch.indices) == size:
                yield batch.feed

    return feeds


def _fixed_batch(model: ModelProto) -> int:
    """The batch that the model's inputs fix, or 1 where they leave it open."""
    for each in model.graph.input:
        dims = each.type.tensor_type.shape.dim
        if dims and dims[0].dim_value > 1:
            return int(dims[0].dim_value)
    return 1


def _first(feeds: Iterator[Feed], count: int) -> list[Feed]:
    return [feed for _, feed in zip(range(count), feeds, strict=False)]
