"""The evidence of a search: metrics/details/plan.json, sensitivity.csv and frontier.csv."""

import math
from collections.abc import Iterator
from typing import Any

from stages.common.base.files import rounded
from stages.quantize.auto.choices import KEPT
from stages.quantize.auto.find import SearchResult
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


def plan_tree(search: SearchResult) -> dict[str, Any]:
    """The content of plan.json."""
    trial = search.trial
    return {
        "objective": search.objective,
        "margin": search.margin,
        "opset": search.recipe.opset,
        "rewrites": list(search.recipe.rewrites),
        "answer": "float" if trial is None else "quantized",
        "reason": search.reason or None,
        "predicted_us": {
            "fp32": rounded(search.measured.float_us, 3),
            "int8": None if trial is None else rounded(trial.predicted.us, 3),
        },
        "speedup": None if trial is None or trial.speedup is None else rounded(trial.speedup.ratio, 3),
        "strain": None if trial is None else rounded(trial.candidate.strain, 3),
        "ranges": search.ranges,
        "smoothing": [
            {"scale": scale, "nodes": nodes, "powers": powers} for (scale, *nodes), powers in search.smoothing.items()
        ],
        "corrections": {name: correction.as_json() for name, correction in search.corrections.items()},
        "nodes": {name: decision.as_json() for name, decision in search.decisions.items()},
    }


def sensitivity_rows(search: SearchResult) -> Iterator[tuple[Any, ...]]:
    """The rows of sensitivity.csv: unknown ones first, then the most sensitive."""
    for entry in by_power(search.measured.sensitivities):
        share = entry.share
        yield (
            entry.node,
            entry.choice,
            "" if entry.noise is None else rounded(entry.noise),
            "" if entry.signal is None else rounded(entry.signal),
            rounded(10 * math.log10(share)) if share else "",
            "" if entry.strain is None else rounded(entry.strain),
            entry.unknown,
        )


def frontier_rows(search: SearchResult) -> Iterator[tuple[Any, ...]]:
    """The rows of frontier.csv: every model that was built, in order."""
    for number, trial in enumerate(search.trials, start=1):
        speedup, candidate = trial.speedup, trial.candidate
        chosen = search.trial is not None and candidate.assignment == search.trial.candidate.assignment
        yield (
            number,
            trial.origin,
            sum(choice != KEPT for choice in candidate.choices.values()),
            rounded(trial.predicted.us),
            *(("", "", "") if speedup is None else map(rounded, (speedup.ratio, speedup.low, speedup.high))),
            rounded(candidate.size / 1e6),
            "" if rounded(candidate.strain) is None else rounded(candidate.strain),
            str(candidate.passes(search.margin)).lower(),
            str(chosen).lower(),
        )
