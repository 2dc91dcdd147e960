"""What quantize prints: a table of operators, cleaning steps, warnings, notes and a conclusion."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from stages.common.base import paths
from stages.common.judging.rules import strain
from stages.common.rule import Rule
from stages.quantize import saturation
from stages.quantize.auto.choices import CHOICES, KEPT
from stages.quantize.auto.find import SearchResult
from stages.quantize.auto.probe import Sensitivity
from stages.quantize.stage import Quantization, QuantizeResult

_REASONS = 3


def render(result: QuantizeResult) -> str:
    quantization = result.quantization
    rows = list(_operator_rows(quantization))
    parts = [tabulate(rows, headers=("operator", "quantized", "kept float"), tablefmt="simple")] if rows else []
    if quantization.search is not None and quantization.search.trials:
        parts.append(_candidates(quantization.search))
    if done := [step.name for step in quantization.steps if not step.undone]:
        parts.append(f"Cleaned: {', '.join(done)}.")
    parts += [f"Undone: {step.name}, because {step.undone}." for step in quantization.steps if step.undone]
    if warning := saturation.warning(quantization.pairs):
        parts.append(f"Warning: {warning}")
    parts += [f"Note: {note}" for note in quantization.notes]
    parts.append(_conclusion(result))
    return "\n".join(parts)


def ranking(sensitivities: Sequence[Sensitivity]) -> str:
    """A table of the share of a tolerance that each choice alone uses up, by node, the most sensitive nodes first."""
    choices = [choice for choice in CHOICES if any(entry.choice == choice for entry in sensitivities)]
    rows: dict[str, dict[str, str]] = {}
    for entry in sensitivities:
        share = "unknown" if entry.power is None else f"{math.sqrt(entry.power):.2g}"
        rows.setdefault(entry.node, {})[entry.choice] = share
    if not rows:
        return "No node can be quantized."
    table = [[node, *(shares.get(choice, "") for choice in choices)] for node, shares in rows.items()]
    unknown = sorted({f"{entry.node}: {entry.unknown}" for entry in sensitivities if entry.unknown})
    return "\n".join(
        [
            tabulate(table, headers=("node", *choices), tablefmt="simple", disable_numparse=True),
            "The share of parity's tolerance that each choice alone uses up on the search samples; the squares of "
            "shares add up over nodes. Set your choices in quantize.nodes.",
            *(f"Unknown: {entry}." for entry in unknown),
        ]
    )


def _candidates(search: SearchResult) -> str:
    """The models that the search built, with the speed-up of those that were timed."""
    rows = []
    chosen = search.trial.candidate if search.trial is not None else None
    for number, trial in enumerate(search.trials, start=1):
        candidate, speedup = trial.candidate, trial.speedup
        rows.append(
            (
                f"{number} {trial.origin}{', chosen' if candidate is chosen else ''}",
                sum(choice != KEPT for choice in candidate.choices.values()),
                f"{candidate.size / 1e6:.3g}",
                "" if speedup is None else f"{speedup.ratio:.2f} ({speedup.low:.2f} to {speedup.high:.2f})",
                "broken" if candidate.fault else f"{candidate.strain:.2f}",
                _nearest(candidate.rules),
            )
        )
    headers = ("model", "INT8 nodes", "MB", "speed-up over fp32", "of tolerance", "tightest rule")
    table = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)
    return f"\n{table}"


def _nearest(rules: Sequence[Rule]) -> str:
    """The rule that uses most of its tolerance, with its figures."""
    rule = max(rules, key=strain, default=None)
    if rule is None:
        return ""
    value = f"{rule.value:.3g}" if isinstance(rule.value, float) else str(rule.value)
    return f"{rule.name} {value}{f' of {rule.output}' if rule.output else ''}, limit {rule.limit}"


def _operator_rows(quantization: Quantization) -> Iterator[tuple[str, str, str]]:
    for op_type in sorted({node.op_type for node in quantization.nodes}):
        outcomes = [quantization.outcomes[node.name] for node in quantization.nodes if node.op_type == op_type]
        reasons = Counter(outcome.reason for outcome in outcomes if not outcome.quantized)
        lines = [f"{count} kept: {reason}" for reason, count in reasons.most_common(_REASONS)]
        if len(reasons) > _REASONS:
            lines.append(f"{len(reasons) - _REASONS} more reasons in {paths.NODES.as_posix()}")
        yield op_type, f"{sum(outcome.quantized for outcome in outcomes)} of {len(outcomes)}", "\n".join(lines)


def _conclusion(result: QuantizeResult) -> str:
    quantization, fp32_mb, int8_mb = result.quantization, result.fp32_mb, result.int8_mb
    if quantization.search is not None and quantization.search.reason:
        return f"{paths.INT8_MODEL.as_posix()} is the fp32 model."
    if quantization.model is None:
        return f"Nothing to quantize: {_why_nothing(quantization)} {paths.INT8_MODEL.as_posix()} is the fp32 model."
    quantized = sum(outcome.quantized for outcome in quantization.outcomes.values())
    counted = f"{quantized} of {len(quantization.quantizable)} nodes quantized: {fp32_mb:.4g} MB -> {int8_mb:.4g} MB"
    return f"{counted}, {fp32_mb / int8_mb:#.3g} times smaller."


def _why_nothing(quantization: Quantization) -> str:
    if quantization.quantizable:
        return "every node with a weight was kept float, for the reasons above."
    if quantization.nodes:
        return "this quantize.method supports none of its operators with a weight."
    if quantization.in_attributes:
        return f"its parameters are attributes of {', '.join(quantization.in_attributes)}, which have no INT8 form."
    return "no operator has a constant float weight."
