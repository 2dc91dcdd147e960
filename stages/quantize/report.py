"""What was done, for people and for DVC: the table on screen, metrics/nodes.csv and metrics/quantize.json."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tabulate import tabulate

from stages.common.files import rounded
from stages.quantize.pipeline import Result

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
    "reason",
)


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
    }


def screen(result: Result, fp32_mb: float, int8_mb: float) -> str:
    """The table and the sentence of conclusion."""
    rows = []
    types = Counter(node.op_type for node in result.nodes)
    for op_type, count in sorted(types.items()):
        decisions = [result.decisions[node.name] for node in result.nodes if node.op_type == op_type]
        reasons = Counter(each.reason for each in decisions if not each.quantized)
        kept = "; ".join(f"{number} kept: {reason}" for reason, number in reasons.most_common(2))
        rows.append((op_type, f"{sum(each.quantized for each in decisions)} of {count}", kept))
    lines = [
        f"Normalised: {step.name}." if not step.undone else f"Not normalised ({step.name}): {step.undone}."
        for step in result.steps
    ]
    if rows:
        lines.append(tabulate(rows, headers=("operator", "quantized", ""), tablefmt="simple"))
    quantized = sum(each.quantized for each in result.decisions.values())
    if not quantized:
        lines.append("Nothing to quantize: the model stays as it is.")
    else:
        lines.append(
            f"{quantized} of {len(result.quantizable)} nodes quantized; {fp32_mb:.4g} MB -> {int8_mb:.4g} MB, "
            f"{fp32_mb / int8_mb:.3g} times smaller."
        )
    return "\n".join(lines)
