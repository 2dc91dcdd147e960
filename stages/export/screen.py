"""What export prints: the model and its data, notes, and a sentence on the drift."""

from collections.abc import Sequence

from tabulate import tabulate

from stages.common.base import paths
from stages.common.base.command import fold
from stages.common.graph.cleaning import Step
from stages.export.drift import Drift
from stages.export.stage import ExportResult


def render(result: ExportResult) -> str:
    opsets = ", ".join(f"{domain} {version}" for domain, version in result.opsets.items())
    labels = "with labels" if result.has_labels else "without labels"
    rows = [
        ("model", f"{paths.FP32_MODEL.as_posix()}, {result.size_mb:.2f} MB, from {result.framework}, opset {opsets}"),
        ("evaluation", f"{result.samples} samples {labels}: {result.search} to search, {result.judge} to judge"),
    ]
    lines = [*(f"Note: {note}" for note in result.notes), *([_cleaning(result.steps)] if result.steps else [])]
    return "\n".join([tabulate(rows, tablefmt="plain"), *map(fold, [*lines, conclusion(result.drift)])])


def _cleaning(steps: Sequence[Step]) -> str:
    done = ", ".join(step.name for step in steps if not step.undone) or "nothing"
    undone = "".join(f"; undone: {step.name} ({step.undone.rstrip('.')})" for step in steps if step.undone)
    return f"Cleaned, with the same answers: {done}{undone}."


def conclusion(drift: Drift) -> str:
    flips = "" if drift.flips is None else f"{drift.flips or 'no'} decision{'s' * (drift.flips != 1)}"
    if drift.max_abs is not None:
        moves = f"The export moves the answers of its source by at most {drift.max_abs:.2g}"
        return f"{moves} and flips {flips}." if flips else f"{moves}."
    reason = drift.null_reasons["max_abs"]
    return f"The export flips {flips}; {reason}." if flips else f"Drift was not measured: {reason}."
