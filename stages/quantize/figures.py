"""What quantize writes: metrics/quantize.json, and in metrics/details quantize.json, nodes.csv and auto's evidence."""

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
    made = result.made
    quantized = sum(made.outcomes[name].quantized for name in made.quantizable)
    return {
        "status": "quantized" if quantized else "nothing_to_quantize",
        "size": {
            "fp32_mb": rounded(result.fp32_mb),
            "int8_mb": rounded(result.int8_mb),
            "times_smaller": rounded(result.fp32_mb / result.int8_mb),
        },
        "nodes": {
            "quantizable": len(made.quantizable),
            "quantized": quantized,
            "kept_float": len(made.quantizable) - quantized,
        },
        "saturation": {"share": rounded(sum(made.pairs.values(), Pairs()).share)},
        "search": {"evals": None if made.search is None else len(made.search.trials)},
    }


def details(result: QuantizeResult) -> dict[str, Any]:
    made = result.made
    warning = saturation.warning(made.pairs)
    return {
        "method": result.method,
        "steps": [{"name": step.name, "undone": step.undone or None} for step in made.steps],
        "in_attributes": list(made.in_attributes),
        "warnings": [warning] if warning else [],
        "notes": list(made.notes),
        "null_reasons": {}
        if made.search is not None
        else {"search.evals": f"quantize.method {result.method} does not search"},
    }


def node_rows(result: QuantizeResult) -> Iterator[tuple[Any, ...]]:
    """The rows of nodes.csv."""
    made = result.made
    for node in made.nodes:
        outcome = made.outcomes[node.name]
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
            _decibels(outcome.sqnr_db),
            _decibels(outcome.full_range_sqnr_db),
            rounded(made.pairs[node.name].share) if node.name in made.pairs else "",
            outcome.reason,
            ";".join(outcome.becomes),
        )


def _decibels(ratio: float | None) -> float | str | None:
    return "" if ratio is None else rounded(ratio)


def write(result: QuantizeResult) -> None:
    search = result.made.search
    with files.together() as outputs:
        outputs.csv(paths.NODES, NODES_HEADER, node_rows(result))
        outputs.csv(paths.SENSITIVITY, evidence.SENSITIVITY_HEADER, evidence.sensitivity_rows(search) if search else ())
        outputs.csv(paths.FRONTIER, evidence.FRONTIER_HEADER, evidence.frontier_rows(search) if search else ())
        outputs.json(paths.PLAN, evidence.plan_tree(search) if search else {"nodes": {}})
        outputs.json(paths.QUANTIZE_DETAILS, details(result))
        outputs.json(paths.QUANTIZE, headlines(result))
