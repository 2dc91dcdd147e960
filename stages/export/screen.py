"""What export prints: the model and its data, notes, and a sentence on the drift."""

import math
from collections.abc import Sequence

from tabulate import tabulate

from stages.common.base import paths
from stages.common.data.evaldata import SUBSETS
from stages.common.graph.cleaning import Step
from stages.common.model.model_file import size_mb
from stages.export.drift import Drift
from stages.export.stage import ExportResult

ROUNDING = 1e-6
"""Probabilities exceed 1 by at most this."""


def render(result: ExportResult) -> str:
    opsets = ", ".join(f"{domain} {version}" for domain, version in result.opsets.items())
    labels = "without labels" if result.exported.labels is None else "with labels"
    search, judge = (len(result.data.indices(subset)) for subset in SUBSETS)
    model = f"{paths.FP32_MODEL.as_posix()}, {size_mb(paths.FP32_MODEL):.2f} MB, from {result.exported.framework}"
    rows = [
        ("model", f"{model}, opset {opsets}"),
        ("evaluation", f"{result.data.samples} samples {labels}: {search} to search, {judge} to judge"),
    ]
    lines = [*(f"Note: {note}" for note in result.notes), *([_cleaning(result.steps)] if result.steps else [])]
    return "\n".join([tabulate(rows, tablefmt="plain"), *lines, conclusion(result.drift)])


def _cleaning(steps: Sequence[Step]) -> str:
    done = ", ".join(step.name for step in steps if not step.undone) or "nothing"
    undone = "".join(f"; undone: {step.name} ({step.undone.rstrip('.')})" for step in steps if step.undone)
    return f"Cleaned, with the same answers: {done}{undone}."


def conclusion(drift: Drift) -> str:
    flips = "" if drift.flips is None else f"{drift.flips or 'no'} decision{'s' * (drift.flips != 1)}"
    if drift.max_abs is not None:
        moves = f"The answers of the export differ from its source's by at most {drift.max_abs:.2g}"
        return f"{moves}, and it flips {flips}{_scale(drift)}." if flips else f"{moves}{_scale(drift)}."
    reason = drift.null_reasons["max_abs"]
    return f"The export flips {flips}; {reason}." if flips else f"Drift was not measured: {reason}."


def _scale(drift: Drift) -> str:
    """The NRMSE of the output that moves most, in words; empty if nothing moves, or if the output is probabilities."""
    largest = max(drift.outputs.values(), key=lambda output: output.largest)
    probabilities = drift.flips is not None and largest.low >= 0 and largest.high <= 1 + ROUNDING
    if probabilities or not largest.nrmse or not math.isfinite(largest.nrmse):
        return ""
    return f"; the RMS difference is {largest.nrmse:.2g} times the standard deviation of the answers"
