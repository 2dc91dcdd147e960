"""The rules of the gate: each checks one figure against one limit. Pure functions of `Figures`."""

from stages.common.base.params import Gate, Parity
from stages.common.rule import Outcome, Rule
from stages.gate.inputs import Figures


def evaluate_rules(figures: Figures, limits: Gate) -> list[Rule]:
    """Every rule with its outcome, in the order of the screen."""
    return [
        _parity(figures),
        _min_samples(figures, limits),
        _require_quantized(figures, limits),
        _max_size_ratio(figures, limits),
        _min_speedup(figures, limits),
    ]


def sentences(*parts: str) -> str:
    """Join sentences, adding missing full stops and leaving out empty ones."""
    return " ".join(part if part.endswith((".", "?", "!")) else f"{part}." for part in parts if part)


def _parity(figures: Figures) -> Rule:
    if figures.parity_passed:
        return Rule("parity", "passed", "passed", None, Outcome.PASSED)
    worst = next(iter(figures.parity_failures), None)
    message = sentences(
        f"Parity failed, so INT8 must not ship regardless of speed (speed-up {figures.speedup})",
        "" if worst is None else _missed(worst),
    )
    return Rule("parity", "failed", "passed", None, Outcome.FAILED, message=message)


def _missed(rule: Rule) -> str:
    """The rule that failed, in a sentence without its full stop.

    If no key sets the rule, as for `shape`, its value is a number of samples or values, which the message states.
    """
    if rule.name not in Parity.model_fields and rule.message:
        return f"In '{rule.output}', {rule.message}"
    place = f" of '{rule.output}'" if rule.output else ""
    figure = "" if rule.value is None else f" is {rule.value}, but the limit is {rule.limit}"
    return f"{rule.name}{place}{figure}{f': {rule.message}' if rule.message else ''}"


def _min_samples(figures: Figures, limits: Gate) -> Rule:
    samples, limit = figures.samples, limits.min_samples
    if limit is None or not figures.quantized:
        return _unjudged("min_samples", samples, limit)
    if samples >= limit:
        return Rule("min_samples", samples, limit, samples - limit, Outcome.PASSED)
    proof = ": passing proves little" if figures.parity_passed else ""
    message = (
        f"Parity judged {samples} sample{'s' * (samples != 1)}, fewer than gate.min_samples {limit}{proof}. "
        "Give export more evaluation data."
    )
    return Rule("min_samples", samples, limit, samples - limit, Outcome.FAILED, message=message)


def _unjudged(name: str, value: float | None, limit: float | None) -> Rule:
    """A rule that is off, or that does not apply because nothing was quantized."""
    return Rule(name, value, limit, None, Outcome.OFF if limit is None else Outcome.NOT_APPLICABLE)


def _require_quantized(figures: Figures, limits: Gate) -> Rule:
    value = "quantized" if figures.quantized else "nothing to quantize"
    if not limits.require_quantized:
        return Rule("require_quantized", value, None, None, Outcome.OFF)
    outcome = Outcome.PASSED if figures.quantized else Outcome.FAILED
    message = "" if figures.quantized else f"gate.require_quantized demands an INT8 model. {nothing_quantized(figures)}"
    return Rule("require_quantized", value, "quantized", None, outcome, message=message)


def _max_size_ratio(figures: Figures, limits: Gate) -> Rule:
    ratio, limit = figures.size_ratio, limits.max_size_ratio
    if limit is None or not figures.quantized:
        return _unjudged("max_size_ratio", ratio, limit)
    if ratio <= limit:
        return Rule("max_size_ratio", ratio, limit, limit - ratio, Outcome.PASSED)
    message = (
        f"The INT8 file is {ratio:.3f} times the size of the fp32 file, above gate.max_size_ratio {limit:g}; "
        "metrics/details/nodes.csv says which weights stayed float."
    )
    return Rule("max_size_ratio", ratio, limit, limit - ratio, Outcome.FAILED, message=message)


def _min_speedup(figures: Figures, limits: Gate) -> Rule:
    """The lower end of the 95 % interval must reach the limit. An interval too wide for a verdict never passes."""
    speedup, limit = figures.speedup, limits.min_speedup
    low = speedup.low
    if limit is None or not figures.quantized:
        return _unjudged("min_speedup", low, limit)
    if low is None or speedup.verdict == "inconclusive":
        message = sentences(
            f"The speed-up {speedup} {figures.host} is too uncertain for a verdict",
            f"While it was timed, {figures.noise}" if figures.noise else "",
            "Run bench again on a quieter machine, or raise bench.max_seconds",
        )
        return Rule("min_speedup", low, limit, None if low is None else low - limit, Outcome.FAILED, message=message)
    if low >= limit:
        return Rule("min_speedup", low, limit, low - limit, Outcome.PASSED)
    if speedup.verdict == "slower":
        message = sentences(f"INT8 is slower than fp32: speed-up {speedup} {figures.host}", *figures.findings)
    else:
        message = f"The lower end of the speed-up {speedup} {figures.host} is below gate.min_speedup {limit:g}."
    return Rule("min_speedup", low, limit, low - limit, Outcome.FAILED, message=message)


def nothing_quantized(figures: Figures) -> str:
    """Why there is no INT8 model, and what to do."""
    if figures.without_int8:
        verb = "has" if len(figures.without_int8) == 1 else "have"
        return (
            f"Nothing was quantized: {', '.join(figures.without_int8)} {verb} no INT8 form; trees and linear models of "
            "ai.onnx.ml gain nothing. Skip quantization and ship fp32."
        )
    same = "Nothing was quantized, so both files hold the same model; metrics/details/nodes.csv says why."
    if figures.parity_advice:
        return same
    if figures.untried:
        names = ", ".join(figures.untried)
        return f"{same} Parity had no time to try {names}: raise parity.advice_seconds, or ship fp32."
    return f"{same} Ship fp32."
