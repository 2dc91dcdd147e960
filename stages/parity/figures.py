"""`metrics/parity.json` and `metrics/details/parity.json`: the figures, rounded, and the reason for each null."""

from collections.abc import Callable
from typing import Any

import onnxruntime

from stages.common import isa
from stages.common.base import paths
from stages.common.base.files import rounded, together
from stages.common.compare import Comparison, OutputComparison
from stages.parity import evidence
from stages.parity.batch_effect import BatchEffect, Movement
from stages.parity.judge import ParityResult
from stages.parity.measure import Measurement
from stages.parity.padding import PaddingEffect
from stages.parity.rules import OVERFLOW

DIGITS = 6
"""Significant digits of the details, which the rules are evaluated on."""

WORST = 5

QUANTILES = (("p50_abs", 0.5), ("p90_abs", 0.9), ("p99_abs", 0.99), ("p999_abs", 0.999))

Tree = dict[str, Any]


def write(result: ParityResult) -> None:
    """Put the evidence, the details and the headlines in place, together."""
    assert result.comparison is not None
    with together() as outputs:
        abs_tols = {rule.output: rule.limit for rule in result.rules if rule.name == "abs_tol"}
        evidence.write(result.comparison, abs_tols, outputs)
        outputs.json(paths.PARITY_DETAILS, details(result))
        outputs.json(paths.PARITY, headlines(result))


def headlines(result: ParityResult) -> Tree:
    """The tree of `metrics/parity.json`. Over several outputs a figure is that of the output that fares worst by it."""
    tree = result.figures
    outputs = [output for output in tree["outputs"].values() if output.get("values_compared")]

    def worst(key: str, pick: Callable[[list[float]], float]) -> float | None:
        values = [output[key] for output in outputs if output[key] is not None]
        return rounded(pick(values)) if values else None

    return {
        "passed": result.passed,
        "diff": {
            "max_abs": worst("max_abs", max),
            "mean_abs": worst("mean_abs", max),
            "nrmse": worst("nrmse", max),
            "sqnr_db": worst("sqnr_db", min),
            "min_cosine": worst("min_cosine", min),
        },
        "decisions": {
            "flips": tree["decisions"]["flips"],
            "flip_rate_high95": rounded(tree["decisions"]["flip_rate_high95"]),
        },
        "task": {"fp32": rounded(tree["task"]["fp32"]), "int8": rounded(tree["task"]["int8"])},
        "batch_effect": {"max_abs": rounded(tree["batch_effect"]["max_abs"])},
        "judged": {"samples": tree["judged"]["samples"]},
    }


def details(result: ParityResult) -> Tree:
    """The tree of `metrics/details/parity.json`: the figures, and the verdict over them."""
    diff = headlines(result)["diff"]
    reasons = {
        "sqnr_db": "equal outputs, or only zeros in fp32: there is no noise or no signal",
        "min_cosine": "one value per sample has no direction",
        "nrmse": "every output that moves is constant in fp32",
    }
    if not any(output.get("values_compared") for output in result.figures["outputs"].values()):
        reasons = dict.fromkeys(diff, "no float output has values")
    nulls = {f"diff.{key}": reasons.get(key, OVERFLOW) for key, value in diff.items() if value is None}
    return {
        **result.figures,
        "judged": {**result.figures["judged"], "needed": result.needed, "vacuous": result.vacuous},
        "rules": [rule.as_json() for rule in result.rules],
        "outliers": result.outliers,
        "advice": [advice.as_json() for advice in result.advice],
        "tried": result.tried,
        "tolerance": result.tolerance and result.tolerance.as_json(),
        "notes": result.notes,
        "null_reasons": {**result.figures["null_reasons"], **nulls},
    }


def measured(measurement: Measurement, threshold: float | None) -> Tree:
    """Every figure that the rules, the notes and the screen need.

    Args:
        measurement: what was measured.
        threshold: `parity.threshold`, which decisions were measured with.
    """
    setting, comparison = measurement.setting, measurement.comparison
    tree = compared(comparison)
    reasons: dict[str, str] = tree["null_reasons"]
    tree["batch_effect"] = {**_batch_effect(measurement.effect), "padding": _padding(measurement.padding)}
    if tree["batch_effect"]["max_abs"] is None:
        reason = measurement.effect.reason or "no float output counts samples along axis 0"
        reasons |= {f"batch_effect.{key}": reason for key, value in tree["batch_effect"].items() if value is None}
    median = measurement.median
    tree["median"] = None if median is None else {**compared(median), "samples": median.samples}
    if tree["median"] is not None:
        del tree["median"]["null_reasons"]
    tree["worst"] = [
        {
            "sample": sample.sample,
            "output": output.name,
            "position": sample.position,
            "fp32": evidence.shown(sample.reference),
            "int8": evidence.shown(sample.candidate),
        }
        for _, output, sample in evidence.worst(comparison)[:WORST]
    ]
    tree["judged"] |= {
        "wanted_threshold": threshold,
        "samples": comparison.samples,
        "batch": setting.batch,
        "batch_size": setting.serving.batch_size,
        "threads": setting.serving.threads,
        "isa": isa.here(),
        "onnxruntime": onnxruntime.__version__,
        "sha256": dict(zip(("fp32", "int8"), setting.sha256, strict=True)),
    }
    return tree


def compared(comparison: Comparison) -> Tree:
    """The figures of one comparison: outputs, decisions, probabilities, task, and what decides."""
    reasons: dict[str, str] = {}
    tree: Tree = {
        "judged": {"decision": comparison.decider.description, "threshold": comparison.decider.threshold},
        "outputs": {name: output_figures(output, reasons) for name, output in comparison.outputs.items()},
        "decisions": _decisions(comparison),
        "probabilities": _probabilities(comparison),
        "task": _task(comparison),
        "null_reasons": reasons,
    }
    known = comparison.flips.count > 0
    undecided = "no output is recognised as a label or as class scores"
    for group, reason in (
        ("decisions", "no such flip, or no class scores to know margins and ranks by" if known else undecided),
        ("probabilities", "it takes class probabilities, and for the confidence error labels of their kind"),
        ("task", tree["task"]["reason"]),
    ):
        reasons |= {f"{group}.{key}": reason for key, value in tree[group].items() if value is None}
    return tree


def output_figures(output: OutputComparison, reasons: dict[str, str]) -> Tree:
    """The figures of one output; why one is null goes to `reasons`."""
    worst = output.worst.samples[0].sample if output.worst.samples else None
    tree: Tree = {
        "kind": output.kind,
        "is_float": output.is_float,
        "values": output.values,
        "values_changed": output.values - output.equal,
        "shape_mismatches": output.mismatched,
        "worst_sample": worst,
    }
    if output.mismatched:
        tree["shape_mismatch"] = output.mismatch
    if not output.is_float:
        return tree
    signal, absolute = output.signal, output.absolute
    tree |= {
        "values_compared": absolute.count,
        "nonfinite_samples": output.finite.differing_samples,
        "nonfinite_first": output.finite.first,
        "max_abs": _number(absolute.maximum),
        "mean_abs": _number(absolute.mean),
        **{key: _number(absolute.quantile(share)) for key, share in QUANTILES},
        "max_of_range": _number(output.relative_max),
        "nrmse": _number(signal.nrmse),
        "sqnr_db": _number(signal.sqnr_db),
        "min_cosine": _number(output.cosine.minimum),
        "min_cosine_sample": output.cosine.sample,
        "mean_cosine": _number(output.cosine.mean),
        "rank_correlation": _number(output.rank_correlation),
        "low": _number(signal.low),
        "high": _number(signal.high),
    }
    if not absolute.count:
        known = dict.fromkeys(tree, "no finite values on both sides")
    else:
        constant = "fp32 is constant"
        known = {
            "max_of_range": constant,
            "nrmse": f"{constant}, and INT8 is not equal to it",
            "sqnr_db": "equal outputs: there is no noise" if not signal.noise else "fp32 is zero everywhere",
            "min_cosine": "one value per sample has no direction",
            "min_cosine_sample": "one value per sample has no direction",
            "mean_cosine": "one value per sample has no direction",
            "rank_correlation": "only for one value per sample that varies",
            "worst_sample": "nothing moved",
        }
    for key, value in tree.items():
        if value is None:
            reasons[f"outputs.{output.name}.{key}"] = known.get(key, OVERFLOW)
    if tree["nrmse"] is None:
        tree["nrmse_reason"] = reasons[f"outputs.{output.name}.nrmse"]
    return tree


def _number(value: float | None) -> float | None:
    return rounded(value, DIGITS)


def _decisions(comparison: Comparison) -> Tree:
    flips = comparison.flips
    known = flips.count > 0
    margins = known and flips.margins_known
    return {
        "count": flips.count,
        "flips": flips.flips if known else None,
        "first_flip": flips.first[0] if flips.first else None,
        "confident_flips": flips.confident if margins else None,
        "tie_flips": flips.ties if margins else None,
        "agreement": _number(flips.agreement),
        "flip_rate_high95": _number(flips.rate_high95),
        "top5_agreement": _number(comparison.top_five.agreement),
    }


def _probabilities(comparison: Comparison) -> Tree:
    before, after = (side.ece for side in comparison.confidence)
    return {"kl_mean": _number(comparison.divergence.mean), "ece_fp32": _number(before), "ece_int8": _number(after)}


def _task(comparison: Comparison) -> Tree:
    task = comparison.task
    return {
        "metric": task.metric,
        "fp32": _number(task.fp32),
        "int8": _number(task.int8),
        **{key: _number(value) for key, value in task.more.items()},
        "chance": task.chance,
        "reason": task.reason,
    }


def _padding(effect: PaddingEffect) -> Tree:
    return {
        "mask": effect.mask,
        "length": effect.length,
        "padded": effect.padded,
        "fp32_max_abs": _number(effect.fp32),
        "int8_max_abs": _number(effect.int8),
        "reason": effect.reason,
    }


def _batch_effect(effect: BatchEffect) -> Tree:
    def largest(*movements: Movement) -> float | None:
        return _number(max((value for movement in movements for value in movement.values()), default=None))

    return {
        "max_abs": largest(effect.serving, effect.large),
        "serving_max_abs": largest(effect.serving),
        "large_max_abs": largest(effect.large),
        "large_error_max_abs": largest(effect.large_error),
        "large_batch": effect.large_batch,
        "samples": effect.samples,
        "reason": effect.reason,
        "outputs": {
            name: {
                "serving": _number(effect.serving.get(name)),
                "large": _number(effect.large.get(name)),
                "large_error": _number(effect.large_error.get(name)),
            }
            for name in effect.large
        },
    }
