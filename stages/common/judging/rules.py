"""The rules: figures of `metrics/details/parity.json` checked against the tolerances of params.yaml.

The figures are rounded as the file holds them, so that trying other tolerances later gives the stage's verdict.
"""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stages.common.base.errors import ParamsError
from stages.common.base.files import rounded
from stages.common.base.params import OutputTolerance, Parity
from stages.common.compare.decided import needed, rate_bound
from stages.common.compare.output import OVERFLOW
from stages.common.rule import Outcome, Rule

CONSTANT_RULES = ("shape", "nonfinite", "equal")
"""Rules that no key can turn off."""

MAX_CHANGED = 0.01
"""The share of the values of a non-float output that may change, if `max_flip_rate` sets no other limit."""

QUANTILE = 0.99
"""If no judged sample exceeds abs_tol, and enough were judged, at least this share of all samples is within it."""

Tree = Mapping[str, Any]


def evaluate_rules(details: Tree, params: Parity) -> list[Rule]:
    """All rules that apply, in the order in which they are shown.

    Raises:
        ParamsError: `parity.outputs` names an output that the model does not have, or limits one that is not float.
    """
    outputs: Mapping[str, Tree] = details["outputs"]
    _check_outputs(outputs, params)
    rules = [rule for name, output in outputs.items() for rule in _unconditional(name, output)]
    for name, output in outputs.items():
        if output.get("values_compared"):
            rules += _distances(name, output, tolerance_of(name, output["kind"], params))
    if not any(output["is_float"] and output["values"] for output in outputs.values()) and not params.max_flip_rate:
        # Without float values and without a rule on flips, only equality proves anything.
        rules += [_equal(name, output) for name, output in outputs.items()]
    else:
        rules += _changes(details, params.max_flip_rate)
    if params.max_flip_rate is not None:
        rules.append(_flip_rate(details, params.max_flip_rate))
    if params.max_task_drop is not None:
        rules.append(_task_drop(details, params.max_task_drop))
    if params.max_batch_effect is not None and "batch_effect" in details:
        rules.append(_batch_effect(details["batch_effect"], params.max_batch_effect))
    return rules


def tolerance_of(name: str, kind: str, params: Parity) -> OutputTolerance:
    """The tolerances of one output: those in `parity.outputs` if it is listed there, else those for its kind."""
    off = {"max_nrmse": None} if kind == "probabilities" else {"abs_tol": None, "mean_tol": None}
    return params.outputs.get(name) or params.model_copy(update=off)


def samples_needed(details: Tree, params: Parity) -> dict[str, int]:
    """By rule, how many samples it takes to prove with 95 % confidence what the rule requires."""
    numbers = {}
    if any(
        output.get("values_compared") and tolerance_of(name, output["kind"], params).abs_tol is not None
        for name, output in details["outputs"].items()
    ):
        numbers["abs_tol"] = needed(1 - QUANTILE)
    if params.max_flip_rate is not None:
        numbers["max_flip_rate"] = needed(params.max_flip_rate)
    return numbers


def strain(rule: Rule) -> float:
    """The share of its tolerance that a rule uses: 1 at the limit, above 1 if it fails.

    In units of amplitude for every rule, so that half the strain means half the error: a decibel is 10^(1/20), and
    1 - cosine grows with the square of the error.
    """
    if rule.value == "inf":  # min_sqnr_db without any noise
        return 0.0
    if rule.name in CONSTANT_RULES or not (isinstance(rule.value, float | int) and isinstance(rule.limit, float | int)):
        return math.inf if rule.failed else 0.0
    value, limit = rule.value, rule.limit
    if rule.name == "min_sqnr_db":
        return float(10 ** ((limit - value) / 20))
    if rule.name == "min_cosine":
        value, limit = math.sqrt(max(0.0, 1 - value)), math.sqrt(max(0.0, 1 - limit))
    if limit <= 0:
        return 0.0 if value <= 0 else math.inf
    return max(0.0, value) / limit


def largest_strain(rules: Iterable[Rule]) -> float:
    """The largest strain of any rule; 0 without rules."""
    return max(map(strain, rules), default=0.0)


def _check_outputs(outputs: Tree, params: Parity) -> None:
    for name in params.outputs:
        if name not in outputs:
            near = difflib.get_close_matches(name, outputs, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(outputs)}."
            raise ParamsError(f"params.yaml: parity.outputs.{name} is not an output of the model; {hint}")
        limits = [key for key, value in params.outputs[name].model_dump().items() if value is not None]
        if limits and not outputs[name]["is_float"]:
            raise ParamsError(
                f"params.yaml: parity.outputs.{name}.{limits[0]} limits an output that is not float; remove it, "
                "and set parity.max_flip_rate if the output may change."
            )


def _held(name: str, output: str, value: float | None, limit: float, message: str = "", **more: Any) -> Rule:
    """A rule with a limit: the value of a `min_` rule must reach it, that of any other must not exceed it."""
    if value is None:
        return Rule(name, None, limit, None, Outcome.FAILED, output, message or OVERFLOW, **more)
    inside = value - limit if name.startswith("min_") else limit - value
    outcome = Outcome.PASSED if inside >= 0 else Outcome.FAILED
    shown = value if math.isfinite(value) else str(value)
    return Rule(name, shown, limit, rounded(inside, 6), outcome, output, message, **more)


def _unconditional(name: str, output: Tree) -> Iterator[Rule]:
    """The rules `shape`, if it fails, and `nonfinite` of one output."""
    if mismatched := output["shape_mismatches"]:
        message = (
            f"shapes differ for {mismatched} sample{'s' * (mismatched != 1)}, e.g. {output['shape_mismatch']}; if an "
            "operator such as NonMaxSuppression makes the shape depend on the values, end the model before it"
        )
        yield Rule("shape", mismatched, 0, -mismatched, Outcome.FAILED, name, message)
    if not output["is_float"] or not output["values"]:
        return
    differing = output["nonfinite_samples"]
    if not differing:
        yield Rule("nonfinite", 0, 0, 0, Outcome.PASSED, name)
        return
    first = output["nonfinite_first"]
    listed = ", ".join(map(str, first[:10])) + (", ..." if differing > 10 else "")
    message = f"only one model gives NaN or infinity in {differing} sample{'s' * (differing != 1)}: {listed}"
    yield Rule("nonfinite", differing, 0, -differing, Outcome.FAILED, name, message, first[0])


def _distances(name: str, output: Tree, tolerance: OutputTolerance) -> Iterator[Rule]:
    """The rules on how far a float output moves."""
    still = output["max_abs"] == 0
    if tolerance.abs_tol is not None:
        yield _held("abs_tol", name, output["max_abs"], tolerance.abs_tol, sample=output["worst_sample"])
    if tolerance.mean_tol is not None:
        yield _held("mean_tol", name, output["mean_abs"], tolerance.mean_tol)
    if tolerance.max_nrmse is not None:
        message = "" if output["nrmse"] is not None else output["nrmse_reason"]
        yield _held("max_nrmse", name, output["nrmse"], tolerance.max_nrmse, message)
    if tolerance.min_sqnr_db is not None:
        value, message = output["sqnr_db"], ""
        if value is None and still:
            value = math.inf
        elif value is None:
            message = "fp32 gives only zeros, or the noise exceeds the range of float64"
        yield _held("min_sqnr_db", name, value, tolerance.min_sqnr_db, message)
    if tolerance.min_cosine is not None and output["min_cosine"] is not None:
        yield _held("min_cosine", name, output["min_cosine"], tolerance.min_cosine, sample=output["min_cosine_sample"])


def _equal(name: str, output: Tree) -> Rule:
    changed = output["values_changed"]
    passed = not changed and not output["shape_mismatches"]
    message = "" if output["values"] else "empty in both models"
    if changed:
        message = (
            f"{changed} of {output['values']} values differ, but in a model without float outputs all must be equal: "
            "add the floats behind them as an output, or set parity.max_flip_rate"
        )
    outcome = Outcome.PASSED if passed else Outcome.FAILED
    return Rule("equal", changed, 0, -changed, outcome, name, message, output["worst_sample"])


def _changes(details: Tree, limit: float | None) -> Iterator[Rule]:
    """A rule for each non-float output, except a label that the rules on its scores or on flips judge."""
    judged = details["judged"]
    covered = judged.get("scored_label")  # metrics of older versions lack it
    if limit is not None:
        covered = judged["decision"].removeprefix("label output ")
    for name, output in details["outputs"].items():
        if output["is_float"] or not output["values"] or name == covered:
            continue
        changed, values = output["values_changed"], output["values"]
        share = rounded(changed / values if limit is None else rate_bound(changed, values, judged["samples"]), 6)
        message = f"{changed} of {values} values differ" if changed or limit is not None else ""
        if limit is None and changed / values > MAX_CHANGED:
            message += f", more than {MAX_CHANGED:.0%}; set parity.max_flip_rate if more may"
        elif limit is not None and share is not None:
            beyond = f", above parity.max_flip_rate {limit:g}" if share > limit else ""
            message += f"; the value is the 95 % upper bound, {share:.3g}{beyond}"
        sample = output["worst_sample"] if changed else None
        yield _held("changed", name, share, limit or MAX_CHANGED, message, sample=sample)


def _batch_effect(effect: Tree, limit: float) -> Rule:
    padding = effect["padding"]
    values = [value for value in (effect["max_abs"], padding["int8_max_abs"]) if value is not None]
    if not values:
        message = effect["reason"] or "no float output counts samples along axis 0"
        return Rule("max_batch_effect", None, limit, None, Outcome.NOT_APPLICABLE, message=message)
    message = ""
    if padding["int8_max_abs"] is not None and padding["int8_max_abs"] == max(values):
        message = f"the value is the movement when padded from {padding['length']} to {padding['padded']} positions"
    return _held("max_batch_effect", "", max(values), limit, message)


def _flip_rate(details: Tree, limit: float) -> Rule:
    decisions, decider = details["decisions"], details["judged"]["decision"]
    bound = decisions["flip_rate_high95"]
    if bound is None:
        message = "no output holds a decision: set parity.threshold, or parity.max_flip_rate to null"
        return _held("max_flip_rate", "", None, limit, message)
    flips, count = decisions["flips"], decisions["count"]
    message = f"{flips} flip{'s' * (flips != 1)} in {count} decisions; the value is the 95 % upper bound"
    samples = min(count, details["judged"]["samples"])
    message += f" over {samples} samples" if samples < count else ""
    if samples < needed(limit):
        message = f"too few samples: {samples}; it takes {needed(limit)} without a flip to prove this limit"
    return _held("max_flip_rate", decider, bound, limit, message, sample=decisions["first_flip"])


def _task_drop(details: Tree, limit: float) -> Rule:
    task = details["task"]
    if task["fp32"] is None or task["int8"] is None:
        message = f"{task['reason']}: give labels that fit, or set parity.max_task_drop to null"
        return _held("max_task_drop", "", None, limit, message)
    return _held("max_task_drop", task["metric"], task["fp32"] - task["int8"], limit, task["chance"])
