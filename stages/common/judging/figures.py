"""The figures of one comparison, rounded, and the reason for each null: what the rules are evaluated on."""

from typing import Any

from stages.common.base.files import rounded
from stages.common.compare import Comparison, OutputComparison
from stages.common.judging.rules import OVERFLOW

DIGITS = 6
"""Significant digits of the details, which the rules are evaluated on."""

QUANTILES = (("p50_abs", 0.5), ("p90_abs", 0.9), ("p99_abs", 0.99), ("p999_abs", 0.999))

Tree = dict[str, Any]


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
        "max_abs": number(absolute.maximum),
        "mean_abs": number(absolute.mean),
        **{key: number(absolute.quantile(share)) for key, share in QUANTILES},
        "max_of_range": number(output.relative_max),
        "nrmse": number(signal.nrmse),
        "sqnr_db": number(signal.sqnr_db),
        "min_cosine": number(output.cosine.minimum),
        "min_cosine_sample": output.cosine.sample,
        "mean_cosine": number(output.cosine.mean),
        "rank_correlation": number(output.rank_correlation),
        "low": number(signal.low),
        "high": number(signal.high),
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


def number(value: float | None) -> float | None:
    """Rounded to `DIGITS`."""
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
        "agreement": number(flips.agreement),
        "flip_rate_high95": number(flips.rate_high95),
        "top5_agreement": number(comparison.top_five.agreement),
    }


def _probabilities(comparison: Comparison) -> Tree:
    before, after = (side.ece for side in comparison.confidence)
    return {"kl_mean": number(comparison.divergence.mean), "ece_fp32": number(before), "ece_int8": number(after)}


def _task(comparison: Comparison) -> Tree:
    task = comparison.task
    return {
        "metric": task.metric,
        "fp32": number(task.fp32),
        "int8": number(task.int8),
        **{key: number(value) for key, value in task.more.items()},
        "chance": task.chance,
        "reason": task.reason,
    }
