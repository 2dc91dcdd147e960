"""The metrics of export: headlines, and the details behind them."""

from typing import Any

from stages.common.base import files, paths
from stages.common.moments import Moments
from stages.export.stage import ExportResult


def headlines(result: ExportResult) -> dict[str, Any]:
    drift = result.drift
    return {
        "drift": {"max_abs": files.rounded(drift.max_abs), "flips": drift.flips},
        "eval": {"samples": result.samples},
        "clean": {"steps": sum(not step.undone for step in result.steps)},
    }


def details(result: ExportResult) -> dict[str, Any]:
    return {
        "source": {"framework": result.framework, "opsets": result.opsets},
        "eval": {
            "layout": result.layout,
            "search": result.search,
            "judge": result.judge,
            "labels": result.has_labels,
        },
        "clean": [{"step": step.name, "undone": step.undone or None} for step in result.steps],
        "drift": {name: _drift(moments) for name, moments in result.drift.outputs.items()},
        "notes": list(result.notes),
        "null_reasons": {f"drift.{key}": reason for key, reason in result.drift.null_reasons.items()},
    }


def _drift(moments: Moments) -> dict[str, float | None]:
    figures = {
        "max_abs": moments.largest,
        "mean_abs": moments.mean_abs,
        "nrmse": moments.nrmse,
        "sqnr_db": moments.sqnr_db,
    }
    return {key: files.rounded(value) for key, value in figures.items()}


def write(result: ExportResult) -> None:
    with files.together() as outputs:
        outputs.json(paths.EXPORT_DETAILS, details(result))
        outputs.json(paths.EXPORT, headlines(result))
