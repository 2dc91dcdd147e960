"""`metrics/parity.json` and `metrics/details/parity.json`: the figures, rounded, and the reason for each null."""

from collections.abc import Callable
from typing import Any

import onnxruntime

from stages.common import isa
from stages.common.base import paths
from stages.common.base.files import rounded, together
from stages.common.judging.figures import compared, number
from stages.common.judging.rules import OVERFLOW
from stages.parity import evidence
from stages.parity.batch_effect import BatchEffect, Movement
from stages.parity.judge import ParityResult
from stages.parity.measure import Measurement
from stages.parity.padding import PaddingEffect

WORST = 5

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


def _padding(effect: PaddingEffect) -> Tree:
    return {
        "mask": effect.mask,
        "length": effect.length,
        "padded": effect.padded,
        "fp32_max_abs": number(effect.fp32),
        "int8_max_abs": number(effect.int8),
        "reason": effect.reason,
    }


def _batch_effect(effect: BatchEffect) -> Tree:
    def largest(*movements: Movement) -> float | None:
        return number(max((value for movement in movements for value in movement.values()), default=None))

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
                "serving": number(effect.serving.get(name)),
                "large": number(effect.large.get(name)),
                "large_error": number(effect.large_error.get(name)),
            }
            for name in effect.large
        },
    }
