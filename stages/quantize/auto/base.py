"""The float model that all candidates are made from: in the opset that is fastest, and with scales folded."""

from pathlib import Path

import onnx_ir as ir

from stages.common.base.params import Params
from stages.common.graph import equivalence
from stages.common.graph.cleaning import Step
from stages.common.graph.equivalence import Reference
from stages.common.graph.passes import convert_opset
from stages.common.model import sessions
from stages.quantize.auto import plan
from stages.quantize.auto.timing import call, in_turn, ratio
from stages.quantize.methods.static import fold_scales, pool_last

FULL_OPSET = 13
"""The opset in which every choice can be had."""

LEAST_OPSET = 11
"""The opset in which dynamic quantization can."""

SECONDS = 1.0

SLOWER = 0.98
"""A float model that conversion slows to less than this has lost a fusion, which no choice makes up for."""


def opset(model: ir.Model, expected: Reference, params: Params) -> int:
    """The opset of a plan that is replayed, or the one to search in."""
    if params.quantize.method == "plan":
        return plan.read(Path(params.quantize.plan or "")).opset
    return fastest_opset(model, expected, params.serving.threads)


def fastest_opset(model: ir.Model, expected: Reference, threads: int) -> int:
    """The opset to search in: `FULL_OPSET`, unless converting to it slows the float model.

    ONNX Runtime fuses attention and normalization by patterns, and some of those are of one opset only.

    Args:
        model: clean.
        expected: feeds to time it on.
        threads: intra-op.
    """
    version = model.opset_imports.get("", 0)
    if version >= FULL_OPSET or not expected.feeds:
        return FULL_OPSET
    try:
        converted = convert_opset.apply(model, FULL_OPSET).model
        both = [sessions.open_session(each, threads, name="the float model") for each in (model, converted)]
    except Exception:  # onnx raises what it likes; the stage converts again, and reports it
        return FULL_OPSET
    rounds = in_turn([call(session, expected.feeds[0]) for session in both], SECONDS)
    return FULL_OPSET if ratio(rounds[:, 0], rounds[:, 1]).ratio >= SLOWER else max(LEAST_OPSET, version)


def folded(model: ir.Model, expected: Reference) -> tuple[ir.Model, list[Step]]:
    """The float model with the rewrites that static makes around any Conv, so that all choices start from one model."""
    result = model.clone()
    names = {node.name or "" for node in result.graph if node.op_type == "Conv"}
    modified = [fold_scales.apply(result, names).modified, pool_last.apply(result).modified]
    if not any(modified):
        return model, []
    undone = equivalence.difference(result, expected)
    return (model if undone else result), [Step("scales of convolutions folded", undone)]
