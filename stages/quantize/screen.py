"""What the stage prints: the table of operators, what was cleaned, the warnings, and the sentence of conclusion."""

from collections import Counter
from collections.abc import Iterator

from tabulate import tabulate

from stages.common.base import paths
from stages.quantize import saturation
from stages.quantize.stage import WIDENED, Quantization, QuantizeResult

_REASONS = 3


def render(result: QuantizeResult) -> str:
    """All of it."""
    made = result.made
    rows = list(_operator_rows(made))
    parts = [tabulate(rows, headers=("operator", "quantized", "kept float"), tablefmt="simple")] if rows else []
    if done := [step.name for step in made.steps if not step.undone]:
        parts.append(f"Cleaned: {', '.join(done)}.")
    parts += [f"Undone: {step.name}, because {step.undone}." for step in made.steps if step.undone]
    if warning := saturation.warning(made.pairs):
        parts.append(f"Warning: {warning}")
    parts.append(_conclusion(result))
    return "\n".join(parts)


def _operator_rows(made: Quantization) -> Iterator[tuple[str, str, str]]:
    for op_type in sorted({node.op_type for node in made.nodes}):
        outcomes = [made.outcomes[node.name] for node in made.nodes if node.op_type == op_type]
        reasons = Counter(outcome.reason for outcome in outcomes if not outcome.quantized)
        lines = [f"{count} kept: {reason}" for reason, count in reasons.most_common(_REASONS)]
        if len(reasons) > _REASONS:
            lines.append(f"{len(reasons) - _REASONS} more reasons in {paths.NODES.as_posix()}")
        yield op_type, f"{sum(outcome.quantized for outcome in outcomes)} of {len(outcomes)}", "\n".join(lines)


def _conclusion(result: QuantizeResult) -> str:
    made, fp32_mb, int8_mb = result.made, result.fp32_mb, result.int8_mb
    if made.model is None:
        return f"Nothing to quantize: {_why_nothing(made)} {paths.INT8_MODEL.as_posix()} is the fp32 model."
    quantized = sum(outcome.quantized for outcome in made.outcomes.values())
    counted = f"{quantized} of {len(made.quantizable)} nodes quantized: {fp32_mb:.4g} MB -> {int8_mb:.4g} MB"
    if int8_mb >= fp32_mb:
        widened = any(step.name == WIDENED and not step.undone for step in made.steps)
        cause = "what stays float was float16" if widened else "its weights are small, scales and added nodes are not"
        return f"{counted}. The file grew: {cause}. Keep the model as it was, unless bench finds this one faster."
    return f"{counted}, {fp32_mb / int8_mb:.3g} times smaller."


def _why_nothing(made: Quantization) -> str:
    if made.quantizable:
        return "none of its nodes with a weight was quantized, for the reasons above."
    if made.nodes:
        return "this quantize.method quantizes none of its operators with a weight."
    if made.in_attributes:
        return f"its parameters are attributes of {', '.join(made.in_attributes)}, which INT8 does not reach."
    return "no operator has a constant float weight."
