"""What a person reads: the rules as a table, then one sentence."""

from tabulate import tabulate

from stages.parity.judgement import Judgement
from stages.parity.verdict import Rule


def table(judgement: Judgement) -> str:
    """The rules with value, limit and mark."""
    rows = [
        (
            rule.name,
            rule.output,
            _number(rule.value),
            _number(rule.limit),
            _number(rule.margin),
            "ok" if rule.passed else "MISS",
            "" if rule.sample is None else rule.sample,
            rule.words,
        )
        for rule in judgement.rules
    ]
    header = ("rule", "output", "value", "limit", "margin", "", "sample", "")
    return str(tabulate(rows, header, tablefmt="simple", disable_numparse=True))


def sentence(judgement: Judgement) -> str:
    """The verdict."""
    missed = [rule for rule in judgement.rules if not rule.passed]
    where = f"{judgement.comparison.samples} samples in batches of {judgement.batch}"
    if not missed:
        return f"Parity holds on {where}."
    return f"Parity is missed on {where}: " + "; ".join(map(_miss, missed)) + "."


def _miss(rule: Rule) -> str:
    of = f" of {rule.output}" if rule.output else ""
    return (
        f"{rule.name}{of} {_number(rule.value)} (limit {_number(rule.limit)}){': ' if rule.words else ''}{rule.words}"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
