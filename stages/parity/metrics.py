"""`metrics/parity.json`: the figures, rounded, and for each null the reason."""

from dataclasses import dataclass, field
from typing import Any

from stages.common import isa
from stages.common.compare import Comparison, OutputComparison
from stages.common.files import rounded
from stages.parity.batch_effect import BatchEffect
from stages.parity.task import task
from stages.parity.verdict import Rule


@dataclass
class _Tree:
    groups: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def put(self, group: str, key: str, value: float | None, reason: str = "") -> None:
        number = value if isinstance(value, int) or value is None else rounded(value)
        self.groups.setdefault(group, {})[key] = number
        if number is None:
            self.notes[key if key not in self.notes else f"{group}_{key}"] = reason or "no figure"


def tree(comparison: Comparison, rules: list[Rule], effect: BatchEffect, batch: int) -> dict[str, Any]:
    """The keys of the design and those of docs/parity.md, ready for JSON."""
    found = _Tree()
    _errors(found, comparison)
    _decisions(found, comparison)
    _task(found, comparison)
    found.put("batch_effect", "max_abs", effect.largest, effect.reason)
    judged = {"samples": comparison.samples, "batch": batch, "isa": isa.here()}
    return {"passed": all(rule.passed for rule in rules), **found.groups, "judged": judged, "parity_notes": found.notes}


def _errors(found: _Tree, comparison: Comparison) -> None:
    outputs = [each for each in comparison.floats if each.error.count]
    reason = "no float output has values"
    found.put("error", "max_abs", max((each.error.largest for each in outputs), default=None), reason)
    found.put("error", "mean_abs", _worst(outputs, lambda each: each.error.mean, max), reason)
    found.put("error", "p99_abs", _worst(outputs, lambda each: each.error.quantile(0.99), max), reason)
    identical = "identical outputs: there is no noise" if outputs else reason
    found.put("error", "sqnr_db", _worst(outputs, lambda each: each.signal.sqnr_db, min), identical)
    single = "every sample has a single value, which has no direction" if outputs else reason
    found.put("error", "min_cosine", _worst(outputs, lambda each: each.cosine.minimum, min), single)


def _worst(outputs: list[OutputComparison], figure: Any, pick: Any) -> float | None:
    figures = [value for value in map(figure, outputs) if value is not None]
    return pick(figures) if figures else None


def _decisions(found: _Tree, comparison: Comparison) -> None:
    flips = comparison.flips
    reason = "no output is recognised as a label or as class scores"
    known = flips.count > 0
    found.put("decisions", "agreement", flips.agreement, reason)
    found.put("decisions", "flips", flips.flips if known else None, reason)
    unknown = "no class scores beside the label: margins are unknown" if known else reason
    confident = flips.confident if known and flips.margins_known else None
    found.put("decisions", "confident_flips", confident, unknown)
    found.put("decisions", "flip_rate_high95", flips.rate_high95, reason)


def _task(found: _Tree, comparison: Comparison) -> None:
    measured = task(comparison)
    found.put("task", "fp32", measured.fp32, measured.reason)
    found.put("task", "int8", measured.int8, measured.reason)
