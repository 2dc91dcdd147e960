"""What the gate prints: the rules that apply, then the decision."""

from tabulate import tabulate

from stages.common.rule import Outcome, Rule, figure_text
from stages.gate.stage import GateResult

_SIGN = {"min_samples": "at least ", "max_size_ratio": "at most ", "min_speedup": "at least "}


def render(result: GateResult) -> str:
    """A table of the rules that are on, notes, reason and advice. `verdict` follows, as the error of a closed gate."""
    rows = [_row(rule) for rule in result.rules if rule.outcome is not Outcome.OFF]
    table = tabulate(rows, headers=("rule", "value", "limit", "margin", "outcome"), disable_numparse=True)
    notes = [f"Note: {note}" for note in result.notes]
    paragraphs = [*notes, result.deployment.reason]
    if result.deployment.advice:
        paragraphs.append(f"Next: {result.deployment.advice}")
    return f"{table}\n\n" + "\n".join(paragraphs)


def verdict(result: GateResult) -> str:
    """Whether the gate is open, the rules that failed, and what to deploy."""
    failed = ", ".join(rule.name for rule in result.failed)
    state = "open" if result.open else f"closed ({failed})"
    return f"The gate is {state}: deploy {result.deployment.deploy}."


def _row(rule: Rule) -> tuple[str, str, str, str, str]:
    return (
        rule.name,
        figure_text(rule.value),
        _SIGN.get(rule.name, "") + figure_text(rule.limit),
        figure_text(rule.margin),
        rule.outcome,
    )
