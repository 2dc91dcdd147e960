"""The verdict: every rule with its value, its limit, and the sample that decided it."""

import difflib
import math
from dataclasses import dataclass

from stages.common.base.errors import ParamsError
from stages.common.base.params import OutputTolerance, Parity
from stages.common.compare import Comparison, OutputComparison
from stages.common.compare.flips import needed


@dataclass(frozen=True)
class Rule:
    """One rule, judged.

    Attributes:
        name: the params key, or `shape`, `nonfinite`, `equal` for what no key can turn off.
        output: that it speaks of; empty for all.
        value: measured, None where nothing could be measured.
        limit: of the value, None for a rule without a number.
        passed: whether it holds.
        words: why, where value and limit do not say it.
        sample: the index that decided it, None where no single one did.
    """

    name: str
    output: str
    value: float | None
    limit: float | None
    passed: bool
    words: str = ""
    sample: int | None = None

    @property
    def margin(self) -> float | None:
        """How far the value is inside the limit: positive is inside, in the value's own unit."""
        if self.value is None or self.limit is None:
            return None
        return self.value - self.limit if self.name.startswith("min_") else self.limit - self.value


def judge(comparison: Comparison, params: Parity) -> list[Rule]:
    """All rules that apply, in the order in which they are shown.

    Raises:
        ParamsError: `parity.outputs` names an output that the model has not.
    """
    _known(comparison, params)
    rules = [rule for output in comparison.outputs.values() for rule in _hard(output)]
    for output in comparison.floats:
        rules += _distances(output, tolerance_of(output.name, params))
    rules += _exact(comparison, params)
    if params.max_flip_rate is not None:
        rules.append(_flip_rate(comparison, params.max_flip_rate))
    if params.max_task_drop is not None:
        rules.append(_task_drop(comparison, params.max_task_drop))
    return rules


def _known(comparison: Comparison, params: Parity) -> None:
    for name in params.outputs:
        if name not in comparison.outputs:
            near = difflib.get_close_matches(name, comparison.outputs, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(comparison.outputs)}."
            raise ParamsError(f"params.yaml: parity.outputs.{name} is no output of the model; {hint}")


def tolerance_of(output: str, params: Parity) -> OutputTolerance:
    """The tolerances of one output: its own, all of them, or those for all outputs."""
    own = params.outputs.get(output)
    return own or OutputTolerance(
        abs_tol=params.abs_tol,
        mean_tol=params.mean_tol,
        min_sqnr_db=params.min_sqnr_db,
        min_cosine=params.min_cosine,
    )


def _hard(output: OutputComparison) -> list[Rule]:
    rules = []
    if output.misshapen:
        words = f"other shapes for {output.misshapen} samples, e.g. {output.misshapen_words}"
        rules.append(Rule("shape", output.name, output.misshapen, 0, False, words))
    finite = output.finite
    if finite.values and not finite.differing_samples:
        rules.append(Rule("nonfinite", output.name, 0, 0, True))
    if finite.differing_samples:
        shown = ", ".join(map(str, finite.first[:10])) + (", ..." if finite.differing_samples > 10 else "")
        words = f"NaN or infinity on one side only, samples {shown}"
        rules.append(Rule("nonfinite", output.name, finite.differing_samples, 0, False, words, finite.first[0]))
    return rules


def _distances(output: OutputComparison, tolerance: OutputTolerance) -> list[Rule]:
    if not output.error.count:
        return []
    worst = output.worst.samples[0].sample if output.worst.samples else None
    rules = []
    if tolerance.abs_tol is not None:
        value = output.error.largest
        rules.append(Rule("abs_tol", output.name, value, tolerance.abs_tol, value <= tolerance.abs_tol, sample=worst))
    if tolerance.mean_tol is not None:
        value = output.error.total / output.error.count
        rules.append(Rule("mean_tol", output.name, value, tolerance.mean_tol, value <= tolerance.mean_tol))
    if tolerance.min_sqnr_db is not None:
        sqnr = output.signal.sqnr_db
        sqnr = math.inf if sqnr is None else sqnr  # all zeros on both sides
        rules.append(Rule("min_sqnr_db", output.name, sqnr, tolerance.min_sqnr_db, sqnr >= tolerance.min_sqnr_db))
    if tolerance.min_cosine is not None and output.cosine.count:
        value = output.cosine.smallest
        passed = value >= tolerance.min_cosine
        rules.append(Rule("min_cosine", output.name, value, tolerance.min_cosine, passed, sample=output.cosine.sample))
    return rules


def _exact(comparison: Comparison, params: Parity) -> list[Rule]:
    """Without a float value and without a rule on flips, nothing but equality can be proven."""
    if any(output.values for output in comparison.floats) or params.max_flip_rate is not None:
        return []
    return [
        Rule(
            "equal",
            output.name,
            output.values - output.equal,
            0,
            output.values == output.equal and not output.misshapen,
            "" if output.values else "empty on both sides",
            output.worst.samples[0].sample if output.worst.samples else None,
        )
        for output in comparison.outputs.values()
    ]


def _flip_rate(comparison: Comparison, limit: float) -> Rule:
    flips = comparison.flips
    bound = flips.rate_high95
    if bound is None:
        return Rule(
            "max_flip_rate", "", None, limit, False, "no output holds a decision: set parity.threshold, or this to null"
        )
    enough = needed(limit)
    words = f"{flips.flips} flips in {flips.count}, 95 % upper bound"
    if flips.count < enough:
        words = f"insufficient samples: {flips.count}, while {enough} without a flip would prove it"
    sample = flips.first[0] if flips.first else None
    return Rule("max_flip_rate", comparison.decider.description, bound, limit, bound <= limit, words, sample)


def _task_drop(comparison: Comparison, limit: float) -> Rule:
    from stages.parity.task import task

    found = task(comparison)
    if found.fp32 is None or found.int8 is None:
        return Rule("max_task_drop", "", None, limit, False, f"{found.reason}: give labels, or set this to null")
    drop = found.fp32 - found.int8
    return Rule("max_task_drop", found.metric, drop, limit, drop <= limit, found.words)
