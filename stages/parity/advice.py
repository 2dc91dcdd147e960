"""What to try after a miss: commands that the shell, DVC and Hydra take as they are. Nothing is advised untried."""

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stages.common.base.errors import ParamsError
from stages.common.base.params import Parity
from stages.common.judging.rules import CONSTANT_RULES, evaluate_rules
from stages.common.rule import Rule

BROKEN = 0.5
"""An output that moves by more than this share of its range is wrong: no tolerance is advised that would accept it."""

_DICT_KEY = re.compile(r"[\w/.+@?|%$*\\()\[\]{}:=, -]+", re.ASCII)
_NOT_TEXT = re.compile(r"true|false|null|nan|inf|[\d.eE+-]+", re.IGNORECASE)


@dataclass(frozen=True)
class Advice:
    """A command, and what it was seen to do."""

    command: str
    effect: str

    def as_json(self) -> dict[str, str]:
        """As it stands in `metrics/details/parity.json`."""
        return {"command": self.command, "effect": self.effect}


def experiment(overrides: Iterable[tuple[str, Any]]) -> str | None:
    """The `dvc exp run` command that sets these keys of params.yaml; None where Hydra cannot express a value."""
    pairs = [(key, _value(value)) for key, value in overrides]
    if any(text is None for _, text in pairs):
        return None
    return "dvc exp run " + " ".join(f"-S {shlex.quote(f'{key}={text}')}" for key, text in pairs)


def wider_tolerance(details: Mapping[str, Any], rules: Sequence[Rule], params: Parity) -> Advice | None:
    """The tolerances that would accept the model as it is, where that can be right; None where it cannot."""
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
    return Advice(command, f"accepts this model as it is: only if such differences do no harm ({moved})")


def _value(value: Any) -> str | None:
    """A value in Hydra's override grammar; None where the grammar has no form for it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        items = [(_dict_key(str(key)), _value(item)) for key, item in value.items()]
        if any(key is None or item is None for key, item in items):
            return None
        return "{" + ",".join(f"{key}:{item}" for key, item in items) + "}"
    if isinstance(value, list | tuple):
        texts = [_quoted(str(item)) for item in value]
        return None if None in texts else "[" + ",".join(text for text in texts if text) + "]"
    return str(value)


def _quoted(text: str) -> str | None:
    """Text in double quotes: a quote is escaped, and so are backslashes, but only before one or at the end."""
    if "${" in text:
        return None  # Hydra interpolates it, quoted or not
    return '"' + re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text) + '"'


def _dict_key(text: str) -> str | None:
    if not _DICT_KEY.fullmatch(text) or _NOT_TEXT.fullmatch(text):
        return None
    return re.sub(r"([\\()\[\]{}:=, ])", r"\\\1", text)


def _up(value: float) -> float:
    """The next number of two significant digits that is not smaller."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return float(f"{math.ceil(value / step * (1 - 1e-12)) * step:.2g}")


def _down(value: float) -> float:
    """The next number of two significant digits, or of three decimals below 1, that is not larger."""
    step = 0.001 if abs(value) < 1 else 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{math.floor(value / step * (1 + 1e-12)) * step:.6g}")
