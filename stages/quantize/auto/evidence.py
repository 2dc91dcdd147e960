"""The evidence of a search: metrics/details/plan.json, sensitivity.csv and frontier.csv."""

import math
from collections.abc import Iterator
from typing import Any

from stages.common.base.files import rounded
from stages.quantize.auto.choices import KEPT
from stages.quantize.auto.find import Found
from stages.quantize.auto.probe import by_power

SENSITIVITY_HEADER = ("node", "choice", "noise", "signal", "noise_db", "strain", "unknown")
FRONTIER_HEADER = (
    "candidate",
    "origin",
    "nodes_quantized",
    "predicted_us",
    "speedup",
    "speedup_low95",
    "speedup_high95",
    "mb",
    "strain",
    "passes",
    "chosen",
)


def plan_tree(found: Found) -> dict[str, Any]:
    """The tree of plan.json."""
    trial = found.trial
    return {
        "objective": found.objective,
        "margin": found.margin,
        "opset": found.recipe.opset,
        "rewrites": list(found.recipe.rewrites),
        "answer": "float" if trial is None else "quantized",
        "reason": found.reason or None,
        "predicted_us": {
            "fp32": rounded(found.measured.float_us, 3),
            "int8": None if trial is None else rounded(trial.predicted.us, 3),
        },
        "speedup": None if trial is None or trial.speedup is None else rounded(trial.speedup.ratio, 3),
        "strain": None if trial is None else rounded(trial.candidate.strain, 3),
        "ranges": found.ranges,
        "smoothing": [
            {"scale": scale, "nodes": nodes, "powers": powers} for (scale, *nodes), powers in found.smoothing.items()
        ],
        "corrections": {name: correction.as_json() for name, correction in found.corrections.items()},
        "nodes": {name: decision.as_json() for name, decision in found.decisions.items()},
    }


def sensitivity_rows(found: Found) -> Iterator[tuple[Any, ...]]:
    """The rows of sensitivity.csv, the most sensitive first, what is unknown before all."""
    for each in by_power(found.measured.sensitivities):
        share = each.share
        yield (
            each.node,
            each.choice,
            "" if each.noise is None else rounded(each.noise),
            "" if each.signal is None else rounded(each.signal),
            rounded(10 * math.log10(share)) if share else "",
            "" if each.strain is None else rounded(each.strain),
            each.unknown,
        )


def frontier_rows(found: Found) -> Iterator[tuple[Any, ...]]:
    """The rows of frontier.csv: every model that was made, in order."""
    for number, trial in enumerate(found.trials, start=1):
        speedup, candidate = trial.speedup, trial.candidate
        chosen = found.trial is not None and candidate.assignment == found.trial.candidate.assignment
        yield (
            number,
            trial.origin,
            sum(choice != KEPT for choice in candidate.choices.values()),
            rounded(trial.predicted.us),
            *(("", "", "") if speedup is None else map(rounded, (speedup.ratio, speedup.low, speedup.high))),
            rounded(candidate.size / 1e6),
            "" if rounded(candidate.strain) is None else rounded(candidate.strain),
            str(candidate.passes(found.margin)).lower(),
            str(chosen).lower(),
        )
