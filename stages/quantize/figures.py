"""Write metrics/quantize.json, and in metrics/details: quantize.json, nodes.csv and the evidence of method auto."""

from collections.abc import Iterator
from typing import Any

from stages.common.base import files, paths
from stages.common.base.files import rounded
from stages.quantize import saturation
from stages.quantize.auto import evidence
from stages.quantize.saturation import Pairs
from stages.quantize.stage import QuantizeResult

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
    "weight_sqnr_full_range_db",
    "saturating_share",
    "reason",
    "becomes",
)


def headlines(result: QuantizeResult) -> dict[str, Any]:
    quantization = result.quantization
    quantized = sum(quantization.outcomes[name].quantized for name in quantization.quantizable)
    return {
        "status": "quantized" if quantized else "nothing_to_quantize",
        "size": {
            "fp32_mb": rounded(result.fp32_mb),
            "int8_mb": rounded(result.int8_mb),
            "times_smaller": rounded(result.fp32_mb / result.int8_mb),
        },
        "nodes": {
            "quantizable": len(quantization.quantizable),
            "quantized": quantized,
            "kept_float": len(quantization.quantizable) - quantized,
        },
        "saturation": {"share": rounded(sum(quantization.pairs.values(), Pairs()).share)},
        "search": {"evals": None if quantization.search is None else len(quantization.search.trials)},
    }


def details(result: QuantizeResult) -> dict[str, Any]:
    quantization = result.quantization
    warning = saturation.warning(quantization.pairs)
    return {
        "method": result.method,
        "steps": [{"name": step.name, "undone": step.undone or None} for step in quantization.steps],
        "in_attributes": list(quantization.in_attributes),
        "warnings": [warning] if warning else [],
        "notes": list(quantization.notes),
        "null_reasons": {}
        if quantization.search is not None
        else {"search.evals": f"quantize.method {result.method} does not search"},
    }


def node_rows(result: QuantizeResult) -> Iterator[tuple[Any, ...]]:
    """The rows of nodes.csv."""
    quantization = result.quantization
    for node in quantization.nodes:
        outcome = quantization.outcomes[node.name]
        yield (
            node.name,
            node.op_type,
            node.graph,
            " ".join(weight.name for weight in node.weights),
            " ".join("x".join(map(str, weight.shape)) for weight in node.weights),
            " ".join(weight.dtype for weight in node.weights),
            node.nbytes,
            str(outcome.quantized).lower(),
            outcome.how,
            rounded(outcome.sqnr_db),
            rounded(outcome.full_range_sqnr_db),
            rounded(quantization.pairs[node.name].share) if node.name in quantization.pairs else None,
            outcome.reason,
            ";".join(outcome.becomes),
        )


def write(result: QuantizeResult) -> None:
    search = result.quantization.search
    with files.together() as outputs:
        outputs.csv(paths.NODES, NODES_HEADER, node_rows(result))
        outputs.csv(paths.SENSITIVITY, evidence.SENSITIVITY_HEADER, evidence.sensitivity_rows(search) if search else ())
        outputs.csv(paths.FRONTIER, evidence.FRONTIER_HEADER, evidence.frontier_rows(search) if search else ())
        outputs.json(paths.PLAN, evidence.plan_tree(search) if search else {"nodes": {}})
        outputs.json(paths.QUANTIZE_DETAILS, details(result))
        outputs.json(paths.QUANTIZE, headlines(result))
