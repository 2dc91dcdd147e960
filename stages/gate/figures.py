"""`metrics/gate.json` and `metrics/details/gate.json`."""

from dataclasses import asdict
from typing import Any

from stages.common.base import files, paths
from stages.gate.stage import GateResult


def write(result: GateResult) -> None:
    """Write both files together."""
    with files.together() as outputs:
        outputs.json(paths.GATE_DETAILS, details(result))
        outputs.json(paths.GATE, headlines(result))


def headlines(result: GateResult) -> dict[str, Any]:
    """The content of `metrics/gate.json`."""
    return {"open": result.open, "deploy": result.deployment.deploy}


def details(result: GateResult) -> dict[str, Any]:
    """The content of `metrics/details/gate.json`; numbers are rounded to four digits."""
    rules = [rule.as_json() for rule in result.rules]
    for rule in rules:
        rule |= {key: files.rounded(rule[key]) for key in ("value", "limit", "margin") if isinstance(rule[key], float)}
    speedup = result.figures.speedup
    missing = {"rules.min_speedup.value": "bench measured no speed-up"} if speedup.low is None else {}
    return {
        "reason": result.deployment.reason,
        "advice": result.deployment.advice,
        "rules": rules,
        "host": asdict(result.figures.host),
        "notes": result.notes,
        "null_reasons": missing,
    }
