"""`metrics/parity.json`: the figures, rounded, and for each null the reason."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stages.common import isa
from stages.common.base.files import rounded
from stages.common.compare import Comparison, OutputComparison
from stages.parity.batch_effect import BatchEffect, largest
from stages.parity.judgement import Judgement
from stages.parity.task import task

QUANTILES = (("p50_abs", 0.5), ("p90_abs", 0.9), ("p99_abs", 0.99), ("p999_abs", 0.999))


@dataclass
class _Tree:
    groups: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def put(self, group: str, key: str, value: float | str | None, reason: str = "") -> None:
        number = value if isinstance(value, int | str) else rounded(value)
        self.groups.setdefault(group, {})[key] = number
        if number is None:
            self.notes.setdefault(key, reason)


def tree(found: Judgement, notes: dict[str, str]) -> dict[str, Any]:
    """The keys of docs/parity.md, ready for JSON.

    Args:
        found: what was measured and decided.
        notes: more sentences for the group `parity_notes`.
    """
    comparison = found.comparison
    made = _Tree()
    _errors(made, comparison)
    _decisions(made, comparison)
    _probabilities(made, comparison)
    _task(made, comparison)
    _batch_effect(made, found.effect)
    made.groups["judged"] = {
        "samples": comparison.samples,
        "batch": found.setting.batch,
        "isa": isa.here(),
        "decision": comparison.decider.description,
    }
    exact = [each for each in comparison.outputs.values() if not each.is_float]
    made.groups["rules"] = {
        name: all(rule.passed for rule in found.rules if rule.name == name)
        for name in dict.fromkeys(rule.name for rule in found.rules)
    }
    if len(comparison.floats) > 1 or any(each.name != comparison.decider.label for each in exact):
        made.groups["outputs"] = {name: _output(each) for name, each in comparison.outputs.items()}
    return {"passed": found.passed, **made.groups, "parity_notes": made.notes | notes}


def _errors(made: _Tree, comparison: Comparison) -> None:
    """Each figure is that of the output which fares worst by it."""
    outputs = [each for each in comparison.floats if each.error.count]
    none = "" if outputs else "no float output has values"

    def put(key: str, pick: Callable[..., float], figure: Callable[[OutputComparison], float | None], why: str) -> None:
        figures = [value for value in map(figure, outputs) if value is not None]
        made.put("error", key, pick(figures) if figures else None, none or why)

    overflow = "beyond what float64 holds"
    put("max_abs", max, lambda each: each.error.maximum, overflow)
    put("mean_abs", max, lambda each: each.error.mean, overflow)
    for key, share in QUANTILES:
        put(key, max, lambda each, share=share: each.error.quantile(share), overflow)  # type: ignore[misc]
    put("max_of_range", max, lambda each: each.relative_max, "every output is constant in fp32")
    silent = any(each.signal.noise and not each.signal.signal for each in outputs)
    noiseless = "fp32 gives nothing but zeros" if silent else "identical outputs: there is no noise"
    put("sqnr_db", min, lambda each: each.signal.sqnr_db, noiseless)
    single = "a single value a sample has no direction"
    put("min_cosine", min, lambda each: each.cosine.minimum, single)
    put("mean_cosine", min, lambda each: each.cosine.mean, single)
    several = "no output has a single value a sample that varies"
    put("rank_correlation", min, lambda each: each.rank_correlation, several)
    made.put("error", "nonfinite_samples", sum(each.finite.differing_samples for each in comparison.floats))


def _decisions(made: _Tree, comparison: Comparison) -> None:
    flips = comparison.flips
    known = flips.count > 0
    reason = "no output is recognised as a label or as class scores"
    unknown = "no class scores beside the label: margins are unknown" if known else reason
    margins = known and flips.margins_known
    made.put("decisions", "agreement", flips.agreement, reason)
    made.put("decisions", "flips", flips.flips if known else None, reason)
    made.put("decisions", "confident_flips", flips.confident if margins else None, unknown)
    made.put("decisions", "tie_flips", flips.ties if margins else None, unknown)
    made.put("decisions", "flip_rate_high95", flips.rate_high95, reason)
    made.put("decisions", "top5_agreement", comparison.top_five.agreement, "no scores of more than five classes")


def _probabilities(made: _Tree, comparison: Comparison) -> None:
    reason = "no output is recognised as class probabilities"
    made.put("probabilities", "kl_mean", comparison.divergence.mean, reason)
    before, after = (each.ece for each in comparison.calibration)
    labels = "it takes class probabilities, decisions, and labels of their kind"
    made.put("probabilities", "ece_fp32", before, labels)
    made.put("probabilities", "ece_int8", after, labels)


def _task(made: _Tree, comparison: Comparison) -> None:
    measured = task(comparison)
    made.put("task", "metric", measured.metric)
    made.put("task", "fp32", measured.fp32, measured.reason)
    made.put("task", "int8", measured.int8, measured.reason)
    for key, value in measured.more.items():
        made.put("task", key, value, "too few samples")


def _batch_effect(made: _Tree, effect: BatchEffect) -> None:
    reason = effect.reason or "no float output counts samples along axis 0"
    made.put("batch_effect", "max_abs", effect.max_abs, reason)
    made.put("batch_effect", "serving_max_abs", largest(effect.serving), reason)
    made.put("batch_effect", "large_max_abs", largest(effect.large), reason)
    made.put("batch_effect", "large_error_max_abs", largest(effect.large_error), reason)
    made.put("batch_effect", "large_batch", effect.large_batch, reason)


def _output(output: OutputComparison) -> dict[str, Any]:
    if not output.is_float:
        return {"equal": rounded(output.equality)}
    return {
        "max_abs": rounded(output.error.maximum),
        "mean_abs": rounded(output.error.mean),
        "p99_abs": rounded(output.error.quantile(0.99)),
        "sqnr_db": rounded(output.signal.sqnr_db),
        "min_cosine": rounded(output.cosine.minimum),
    }
