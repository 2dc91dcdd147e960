"""The tolerances that would accept a model that missed, if that can be right."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from stages.common.base.errors import ParamsError
from stages.common.base.params import Parity
from stages.common.judging.rules import CONSTANT_RULES, evaluate_rules
from stages.common.rule import Rule
from stages.parity.advice import Advice, experiment

BROKEN = 0.5
"""An output that moves by more than this share of its range is wrong: no tolerance is suggested for it."""


def wider_tolerance(details: Mapping[str, Any], rules: Sequence[Rule], params: Parity) -> Advice | None:
    """The tolerances that would accept the model as it is; None if that cannot be right."""
    failed = [rule for rule in rules if rule.failed]
    if any(rule.name in CONSTANT_RULES or not isinstance(rule.value, float) for rule in failed):
        return None
    if any((details["outputs"].get(rule.output, {}).get("max_of_range") or 0.0) > BROKEN for rule in failed):
        return None
    limits: dict[str, float] = {}
    own: dict[str, dict[str, float]] = {}
    for rule in failed:
        assert isinstance(rule.value, float)
        wide = _down(rule.value) if rule.name.startswith("min_") else _up(rule.value)
        place = own.setdefault(rule.output, {}) if rule.output in params.outputs else limits
        place[rule.name] = (min if rule.name.startswith("min_") else max)(wide, place.get(rule.name, wide))
    tree = params.model_dump() | limits
    for name, more in own.items():
        tree["outputs"][name] |= more
    try:
        wider = Parity.model_validate(tree)
    except (ValidationError, ParamsError):
        return None  # such as a flip rate of 1, which allows anything
    if any(rule.failed for rule in evaluate_rules(details, wider)):
        return None
    overrides: list[tuple[str, Any]] = [(f"parity.{name}", value) for name, value in limits.items()]
    command = experiment([*overrides, *([("parity.outputs", own)] if own else [])])
    moved = ", ".join(f"{rule.name} {rule.value:.3g}" for rule in failed[:3])
    if command is None:
        return None
    return Advice(command, f"if differences of this size are acceptable ({moved}), accept this model as it is")


def _up(value: float) -> float:
    """Rounded up to two significant digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return float(f"{math.ceil(value / step * (1 - 1e-12)) * step:.2g}")


def _down(value: float) -> float:
    """Rounded down to two significant digits, below 1 to three decimals."""
    step = 0.001 if abs(value) < 1 else 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{math.floor(value / step * (1 + 1e-12)) * step:.6g}")
