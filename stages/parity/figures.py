"""What parity writes: headlines, details with every figure and the reason for each null, and the CSV files."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from stages.common.base import paths
from stages.common.base.files import Outputs, rounded_tree, together
from stages.common.compare.comparison import Comparison
from stages.common.compare.output import OVERFLOW, OutputComparison
from stages.parity.judge import ParityResult, finite_or_text, worst_samples

BINS_PER_DECADE = 4
PLOTTED_OUTPUTS = 6
PLOTTED_PAIRS = 500

Tree = dict[str, Any]


def write(result: ParityResult) -> None:
    assert result.comparison is not None
    headline = headlines(result)
    with together() as outputs:
        abs_tols = {rule.output: rule.limit for rule in result.rules if rule.name == "abs_tol"}
        _write_evidence(result.comparison, abs_tols, outputs)
        outputs.json(paths.PARITY_DETAILS, details(result, headline["diff"]))
        outputs.json(paths.PARITY, headline)


def headlines(result: ParityResult) -> Tree:
    """The tree of `metrics/parity.json`. Each figure is the worst over the outputs."""
    tree = result.figures
    outputs = [output for output in tree["outputs"].values() if output.get("values_compared")]

    def worst(key: str, pick: Callable[[list[float]], float]) -> float | None:
        values = [output[key] for output in outputs if output[key] is not None]
        return pick(values) if values else None

    higher_is_worse = {"max_abs": True, "mean_abs": True, "nrmse": True, "sqnr_db": False, "min_cosine": False}
    headline: Tree = rounded_tree(
        {
            "passed": result.passed,
            "diff": {key: worst(key, max if higher else min) for key, higher in higher_is_worse.items()},
            "decisions": {key: tree["decisions"][key] for key in ("flips", "flip_rate_high95")},
            "task": {key: tree["task"][key] for key in ("fp32", "int8")},
            "batch_effect": {"max_abs": tree["batch_effect"]["max_abs"]},
            "judged": {"samples": tree["judged"]["samples"]},
        }
    )
    return headline


def details(result: ParityResult, diff: Mapping[str, float | None]) -> Tree:
    """The tree of `metrics/details/parity.json`: figures and verdict; `diff` comes from the headlines."""
    reasons = {
        "sqnr_db": "the outputs are identical, or fp32 is all zeros: the ratio needs a signal and noise",
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
        "untried": result.untried,
        "tolerance": result.tolerance and result.tolerance.as_json(),
        "notes": result.notes,
        "null_reasons": {**result.figures["null_reasons"], **nulls},
    }


def _write_evidence(comparison: Comparison, abs_tols: Mapping[str, Any], outputs: Outputs) -> None:
    """Write `metrics/details/parity_errors.csv`, `parity_scatter.csv` and `parity_worst.csv`.

    `abs_tols` holds the abs_tol of each output that has one.
    """
    errors, pairs = [], []
    for output in comparison.floats[:PLOTTED_OUTPUTS]:
        errors += [
            (output.name, low, high, count, count / output.compared, abs_tols.get(output.name))
            for low, high, count in output.distances.histogram(BINS_PER_DECADE)
        ]
        pairs += [(output.name, *pair) for pair in _pairs(output)]
    header: tuple[str, ...] = ("output", "low", "high", "values", "share", "abs_tol")
    outputs.csv(paths.PARITY_ERRORS, header, errors, dict.fromkeys(("low", "high", "share"), 4))
    header = ("output", "sample", "fp32", "int8")
    outputs.csv(paths.PARITY_SCATTER, header, pairs, {"fp32": 6, "int8": 6})
    rows = [
        (
            sample.sample,
            output.name,
            sample.position,
            finite_or_text(sample.reference),
            finite_or_text(sample.candidate),
            None if share is None else sample.error,
            share,
        )
        for share, output, sample in worst_samples(comparison)
    ]
    header = ("sample", "output", "position", "fp32", "int8", "abs_error", "share_of_range")
    outputs.csv(paths.PARITY_WORST, header, rows, {"fp32": 6, "int8": 6, "abs_error": 4, "share_of_range": 4})


def _pairs(output: OutputComparison) -> list[tuple[int, float, float]]:
    """Pairs of values as (sample, fp32, int8): drawn uniformly, and the worst, which would probably not be drawn."""
    if output.pairs.values is None:
        return []
    samples, values = output.pairs.samples[:PLOTTED_PAIRS], output.pairs.values[:PLOTTED_PAIRS]
    kept = {(sample, *pair) for sample, pair in zip(samples.tolist(), values.tolist(), strict=True)}
    worst = [moved for moved in output.worst.samples if moved.error < math.inf]
    return sorted(kept | {(moved.sample, moved.reference, moved.candidate) for moved in worst})
