"""The metrics of export: headlines, and the details behind them."""

from typing import Any

from stages.common.base import files, paths
from stages.common.data.evaldata import SUBSETS
from stages.common.moments import Moments
from stages.export.stage import ExportResult


def headlines(result: ExportResult) -> dict[str, Any]:
    drift = result.drift
    return {
        "drift": {"max_abs": files.rounded(drift.max_abs), "flips": drift.flips},
        "eval": {"samples": result.data.samples},
        "clean": {"steps": sum(not step.undone for step in result.steps)},
    }


def details(result: ExportResult) -> dict[str, Any]:
    subsets = {subset: len(result.data.indices(subset)) for subset in SUBSETS}
    return {
        "source": {"framework": result.exported.framework, "opsets": result.opsets},
        "eval": {"layout": result.data.layout, **subsets, "labels": result.exported.labels is not None},
        "clean": [{"step": step.name, "undone": step.undone or None} for step in result.steps],
        "drift": {name: _drift(moments) for name, moments in result.drift.outputs.items()},
        "notes": list(result.notes),
        "null_reasons": {f"drift.{key}": reason for key, reason in result.drift.null_reasons.items()},
    }


def _drift(moments: Moments) -> dict[str, float | None]:
    figures = (moments.largest, moments.mean_abs, moments.nrmse, moments.sqnr_db)
    return dict(zip(("max_abs", "mean_abs", "nrmse", "sqnr_db"), map(files.rounded, figures), strict=True))


def write(result: ExportResult) -> None:
    with files.together() as outputs:
        outputs.json(paths.EXPORT_DETAILS, details(result))
        outputs.json(paths.EXPORT, headlines(result))
