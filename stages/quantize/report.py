"""What was done, for people and for DVC: the table on screen, metrics/details/nodes.csv and metrics/quantize.json."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tabulate import tabulate

from stages.common.base import paths
from stages.common.base.files import rounded
from stages.quantize import saturation
from stages.quantize.normalise import WIDENED
from stages.quantize.pipeline import Result
from stages.quantize.saturation import Pairs

NODES_HEADER = (
    "node",
    "op_type",
    "graph",
    "weight",
    "weight_shape",
    "weight_dtype",
    "weight_bytes",
    "quantized",
    "how",
    "weight_sqnr_db",
    "saturating_share",
    "reason",
)

_REASONS = 3


def node_rows(result: Result) -> Iterator[tuple[Any, ...]]:
    """The rows of nodes.csv."""
    for node in result.nodes:
        decision = result.decisions[node.name]
        yield (
            node.name,
            node.op_type,
            node.graph,
            " ".join(weight.name for weight in node.weights),
            " ".join("x".join(map(str, weight.shape)) for weight in node.weights),
            " ".join(weight.dtype for weight in node.weights),
            node.nbytes,
            str(decision.quantized).lower(),
            decision.how,
            "" if decision.sqnr_db is None else rounded(decision.sqnr_db),
            rounded(result.pairs[node.name].share) if node.name in result.pairs else "",
            decision.reason,
        )


def metrics(result: Result, fp32_mb: float, int8_mb: float) -> dict[str, Any]:
    """The tree of quantize.json."""
    quantized = sum(result.decisions[name].quantized for name in result.quantizable)
    return {
        "status": "quantized" if quantized else "nothing_to_quantize",
        "size": {
            "fp32_mb": rounded(fp32_mb),
            "int8_mb": rounded(int8_mb),
            "times_smaller": rounded(fp32_mb / int8_mb),
        },
        "nodes": {
            "quantizable": len(result.quantizable),
            "quantized": quantized,
            "kept_float": len(result.quantizable) - quantized,
        },
        "saturation": {"share": rounded(sum(result.pairs.values(), Pairs()).share)},
    }


def screen(result: Result, fp32_mb: float, int8_mb: float) -> str:
    """The table of operators, what was normalised, the warnings, and the sentence of conclusion."""
    parts = [tabulate(_operator_rows(result), headers=("operator", "quantized", "kept float"), tablefmt="simple")]
    if not result.nodes:
        parts = []
    for step in result.steps:
        parts.append(f"Undone: {step.name}, because {step.undone}." if step.undone else f"Normalised: {step.name}.")
    if result.model is not None and (warning := saturation.warning(result.pairs)):
        parts.append(f"Warning: {warning}")
    parts.append(_conclusion(result, fp32_mb, int8_mb))
    return "\n".join(parts)


def _operator_rows(result: Result) -> Iterator[tuple[str, str, str]]:
    for op_type in sorted({node.op_type for node in result.nodes}):
        decisions = [result.decisions[node.name] for node in result.nodes if node.op_type == op_type]
        reasons = Counter(each.reason for each in decisions if not each.quantized)
        told = [f"{count} kept: {reason}" for reason, count in reasons.most_common(_REASONS)]
        if len(reasons) > _REASONS:
            told.append(f"{len(reasons) - _REASONS} more reasons in {paths.NODES.as_posix()}")
        yield op_type, f"{sum(each.quantized for each in decisions)} of {len(decisions)}", "\n".join(told)


def _conclusion(result: Result, fp32_mb: float, int8_mb: float) -> str:
    if result.model is None:
        return f"Nothing to quantize: {_why_nothing(result)} {paths.INT8_MODEL.as_posix()} is the fp32 model."
    quantized = sum(each.quantized for each in result.decisions.values())
    sizes = f"{fp32_mb:.4g} MB -> {int8_mb:.4g} MB"
    counted = f"{quantized} of {len(result.quantizable)} nodes quantized: {sizes}"
    if int8_mb >= fp32_mb:
        widened = any(step.name == WIDENED and not step.undone for step in result.steps)
        cause = "what stays float was float16" if widened else "its weights are small, scales and added nodes are not"
        return f"{counted}. The file grew: {cause}. Keep the model as it was, unless bench finds this one faster."
    return f"{counted}, {fp32_mb / int8_mb:.3g} times smaller."


def _why_nothing(result: Result) -> str:
    if result.quantizable:
        return "none of its nodes with a weight was quantized, for the reasons above."
    if result.nodes:
        return "this quantize.method quantizes none of its operators with a weight."
    if result.in_attributes:
        return f"its parameters are attributes of {', '.join(result.in_attributes)}, which INT8 does not reach."
    return "no operator has a constant float weight."
