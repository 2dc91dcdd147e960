"""The verdict: the figures of a measurement, checked against the tolerances. Nothing is measured here."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import onnxruntime
from pydantic import ValidationError

from stages.common.base.errors import ParamsError
from stages.common.base.files import rounded_tree
from stages.common.base.params import Parity
from stages.common.compare.comparison import DIGITS, Comparison
from stages.common.compare.output import OutputComparison
from stages.common.compare.summaries import WORST_KEPT, WorstSample
from stages.common.judging.rules import CONSTANT_RULES, evaluate_rules
from stages.common.rule import Rule, failures
from stages.parity.advice import Advice, experiment
from stages.parity.measure import Measurement

WORST = 5

BROKEN = 0.5
"""An output that moves by more than this share of its range is broken: no tolerance is suggested for it."""

Tree = dict[str, Any]


@dataclass(frozen=True)
class ParityResult:
    """The figures, the verdict, and what the stage adds to explain it.

    Attributes:
        figures: the tree that `measured_figures` makes, or that `metrics/details/parity.json` holds.
        rules: the rules that apply, with their outcomes.
        comparison: the source of the evidence files; None when tolerances are tried on the last run's figures.
        vacuous: outputs for which passing proves nothing.
        needed: by rule, how many samples it takes to prove what the rule requires.
        notes: sentences on what the verdict proves, and where it would not hold.
        advice: commands whose models were tried and passed, with the measured effect, best first.
        tried: sentences on why variants were tried after a pass, and on what was tried without success; may be empty.
        untried: the settings of each variant that there was no time for.
        tolerance: the command that would accept the model as it is; None if no tolerance can be justified.
        outliers: input features with outliers; only searched for after a miss.
    """

    figures: Mapping[str, Any]
    rules: list[Rule]
    comparison: Comparison | None = None
    vacuous: list[str] = field(default_factory=list)
    needed: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)
    tried: str = ""
    untried: list[str] = field(default_factory=list)
    tolerance: Advice | None = None
    outliers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return not failures(self.rules)


def judge(measurement: Measurement, params: Parity) -> ParityResult:
    """The figures of a measurement, and the verdict on them.

    Raises:
        ParamsError: `parity.outputs` does not fit the model, see `evaluate_rules`.
    """
    figures = measured_figures(measurement, params.threshold)
    return ParityResult(figures, evaluate_rules(figures, params), measurement.comparison)


def measured_figures(measurement: Measurement, threshold: float | None) -> Tree:
    """Every figure that rules, notes and screen need; decisions were measured with `threshold`."""
    setting, comparison, median = measurement.setting, measurement.comparison, measurement.median
    tree = comparison.figures()
    effect = measurement.effect
    moved = {
        "max_abs": effect.largest("serving", "large"),
        **{f"{key}_max_abs": effect.largest(key) for key in ("serving", "large", "large_error")},
        **asdict(effect),
        "padding": asdict(measurement.padding),
    }
    worst = [
        {
            "sample": sample.sample,
            "output": output.name,
            "position": sample.position,
            "fp32": finite_or_text(sample.reference),
            "int8": finite_or_text(sample.candidate),
        }
        for _, output, sample in worst_samples(comparison)[:WORST]
    ]
    tree |= rounded_tree({"batch_effect": moved, "median": None, "worst": worst}, DIGITS)
    if moved["max_abs"] is None:
        reason = effect.reason or "no float output counts samples along axis 0"
        nulls = [key for key, value in tree["batch_effect"].items() if value is None]
        tree["null_reasons"] |= {f"batch_effect.{key}": reason for key in nulls}
    if median is not None:
        tree["median"] = {**median.figures(), "samples": median.samples}
        del tree["median"]["null_reasons"]
    tree["judged"] |= {
        "wanted_threshold": threshold,
        "batch": setting.batch,
        "batch_size": setting.serving.batch_size,
        "threads": setting.serving.threads,
        "logarithms": sorted(setting.fp32.logarithms),
        "isa": setting.isa,
        "onnxruntime": onnxruntime.__version__,
        "sha256": dict(zip(("fp32", "int8"), setting.sha256, strict=True)),
    }
    return tree


def worst_samples(comparison: Comparison) -> list[tuple[float | None, OutputComparison, WorstSample]]:
    """The samples that moved most, each with its error as a share of the output's range.

    First up to `WORST_KEPT` of all float outputs, then up to as many of all other outputs, whose share is None.
    """
    ranked: dict[bool, list[tuple[float, OutputComparison, WorstSample]]] = {True: [], False: []}
    for output in comparison.outputs.values():
        span = output.span or 1.0
        ranked[output.is_float] += [(sample.error / span, output, sample) for sample in output.worst.samples]
    for rows in ranked.values():
        rows.sort(key=lambda row: (-row[0], row[2].sample, row[1].name))
        del rows[WORST_KEPT:]
    return [*ranked[True], *((None, output, sample) for _, output, sample in ranked[False])]


def wider_tolerance(result: ParityResult, params: Parity) -> Advice | None:
    """Advice with the tolerances that would accept the model as it is; None if no tolerance can be justified."""
    details, failed = result.figures, failures(result.rules)
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
    if failures(evaluate_rules(details, wider)):
        return None
    overrides: list[tuple[str, Any]] = [(f"parity.{name}", value) for name, value in limits.items()]
    command = experiment([*overrides, *([("parity.outputs", own)] if own else [])])
    moved = ", ".join(f"{rule.name} {rule.value:.3g}" for rule in failed[:3])
    if command is None:
        return None
    return Advice(command, f"if differences of this size are acceptable ({moved}), accept this model as it is")


def finite_or_text(value: Any) -> Any:
    """A value for JSON and CSV: NaN and infinities as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _up(value: float) -> float:
    """A value rounded up to two significant digits, as text."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return float(f"{math.ceil(value / step * (1 - 1e-12)) * step:.2g}")


def _down(value: float) -> float:
    """A value rounded down to two significant digits, below 1 to three decimals, as text."""
    step = 0.001 if abs(value) < 1 else 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{math.floor(value / step * (1 + 1e-12)) * step:.6g}")
