"""The gate's screen: the rules that apply, then one sentence."""

from tabulate import tabulate

from stages.common.rule import Outcome, Rule
from stages.gate.stage import GateResult

_SIGN = {"min_samples": "at least ", "max_size_ratio": "at most ", "min_speedup": "at least "}


def render(result: GateResult) -> str:
    """A table of the rules that are on; the decision where the gate is open. See `closed` for the other case."""
    rows = [_row(rule) for rule in result.rules if rule.outcome is not Outcome.OFF]
    table = tabulate(rows, headers=("rule", "value", "limit", "margin", "outcome"), disable_numparse=True)
    parts = [table, *(f"Note: {note}" for note in result.notes)]
    if result.open:
        parts.append(f"The gate is open: deploy {result.deployment.deploy}. {result.deployment.reason}")
    return "\n\n".join(parts)


def closed(result: GateResult) -> str:
    """The sentence of a closed gate: the rules that failed, the decision, the next command."""
    names = ", ".join(rule.name for rule in result.failed)
    advice = f" Next: `{result.deployment.advice}`" if result.deployment.advice else ""
    return f"The gate is closed ({names}): deploy {result.deployment.deploy}. {result.deployment.reason}{advice}"


def _row(rule: Rule) -> tuple[str, str, str, str, str]:
    return rule.name, _text(rule.value), _SIGN.get(rule.name, "") + _text(rule.limit), _text(rule.margin), rule.outcome


def _text(value: float | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.3g}"
