"""The pictures of a report: speed-up by batch size, speed against error, differences against tolerance, latency."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.common.base.errors import StageError
from stages.common.base.files import rounded
from stages.common.judging.rules import largest_strain
from stages.report import drawing
from stages.report.drawing import Picture
from stages.report.evidence import figure
from stages.report.revision import SPEEDUP, Revision, Rows
from stages.report.stage import Report


def pictures(report: Report) -> list[Picture]:
    """All pictures whose figures were measured; the base is drawn too if it can be compared."""
    comparison = report.comparison
    sides = [("this", report.head)]
    if comparison and not comparison.timing:
        sides.insert(0, ("base", comparison.base))
    drawn = [speedup(sides), tradeoff(sides), differences(report, sides), latency(sides)]
    return [picture for picture in drawn if picture is not None]


def speedup(sides: Sequence[tuple[str, Revision]]) -> Picture | None:
    """Speed-up with its interval by batch size, with a line at 1."""
    rows = [
        {**{key: row[key] for key in ("batch", "speedup", "low95", "high95")}, "side": name}
        for name, side in sides
        for row in side.detail("bench", "batches") or []
        if isinstance(row, Mapping) and row.get("speedup") is not None
    ]
    if not rows:
        return None
    for row in rows:
        row["label"] = f"{row['side']}, batch {row['batch']}: {row['speedup']} ({row['low95']} to {row['high95']})"
    x = {"field": "batch", "type": "ordinal", "title": "samples in a call", "axis": {"labelAngle": 0}}
    place = {
        "x": {**x, "scale": {"paddingInner": 0.6}},
        "xOffset": {"field": "side", "sort": ["base", "this"]},
        "color": drawing.color_by("side", [name for name, _ in sides]),
    }
    title = "fp32 time / INT8 time"
    point = {**place, "y": drawing.scale("speedup", title), **drawing.ON_HOVER}
    layers = [
        drawing.line_at(1, "y"),
        drawing.layer("rule", {**place, **drawing.interval("low95", "high95", title)}, strokeWidth=2),
        drawing.layer("point", point, filled=True, size=60, opacity=1),
    ]
    spec = drawing.plot("Speed-up with its 95 % interval", layers, rows)
    return Picture("speedup", "Speed-up of INT8 over fp32 by batch size, with 95 % intervals", spec)


def tradeoff(sides: Sequence[tuple[str, Revision]]) -> Picture | None:
    """Speed-up against error; the area of a point is the size of the file.

    If method auto timed other models, they are drawn too: then the error is the share of the tolerance used, with a
    line at the limit.
    """
    tried = [point for row in sides[-1][1].frontier if (point := _tried(row))]
    rows = []
    for name, side in sides:
        error: Any = _strain(side) if tried else side.value("parity", "diff.max_abs")
        size = side.value("quantize", "size.int8_mb")
        ratio, low, high = (side.value("bench", f"speedup.{key}") for key in ("ratio", "low95", "high95"))
        if None not in (error, size, ratio, low, high):
            rows.append(_point(f"INT8, {name}", name, (ratio, low, high), error, size, share=bool(tried)))
    if not rows:
        return None
    size = sides[-1][1].value("quantize", "size.fp32_mb")
    if size is not None:
        rows.append(_point("fp32", "fp32", (1.0, 1.0, 1.0), 0.0, size, share=bool(tried)))
    error = "share of the tolerance used" if tried else "largest difference from fp32"
    kinds = [*(name for name, _ in sides), "fp32", *(["tried"] if tried else [])]
    spec = drawing.pareto([*tried, *rows], "Speed, error and size", error, kinds, 1.0 if tried else None)
    return Picture("tradeoff", f"Speed-up against the {error}, with file sizes", spec)


def _strain(side: Revision) -> float | None:
    """The share of its tolerance that the INT8 model uses; None if its rules are missing or of another version."""
    try:
        rules = side.rules("parity")
    except StageError:
        return None
    return rounded(largest_strain(rules)) if rules else None


def _tried(row: Mapping[str, str]) -> dict[str, Any] | None:
    """A model that method auto tried, as a point without a name; None if it was not timed."""
    ratio, low, high, size, strain = (figure(row, key) for key in (*SPEEDUP, "mb", "strain"))
    if ratio is None or low is None or high is None or size is None or strain is None or row["chosen"] == "true":
        return None
    point = _point(f"tried, model {row['candidate']}", "tried", (ratio, low, high), strain, size, share=True)
    return {**point, "name": ""}


def _point(
    name: str, kind: str, interval: tuple[float, float, float], error: float, size: float, *, share: bool
) -> dict[str, Any]:
    """One model; its error is a `share` of the tolerance, or the largest difference."""
    ratio, low, high = interval
    used = f"{error:.0%} of the tolerance used" if share else f"difference {error}"
    label = f"{name}: speed-up {ratio} ({low} to {high}), {used}, {size} MB"
    shown = f"{name}, {size:.3g} MB"
    return {"kind": kind, "x": error, "y": ratio, "low": low, "high": high, "size": size, "label": label, "name": shown}


def differences(report: Report, sides: Sequence[tuple[str, Revision]]) -> Picture | None:
    """The share of values that differ by more than x, by output, with a line at the tolerance."""
    tolerances = [rule.limit for rule in report.rules if rule.name == "abs_tol"]
    limits = sorted({float(limit) for limit in tolerances if isinstance(limit, int | float)})
    judged = sides
    if report.comparison and not report.comparison.judging:
        judged = [("base", report.comparison.base), ("this", report.head)]
    rows = [row for name, side in judged for row in _survival(name, side.errors)]
    if not rows:
        return None
    floor = max([*limits, *(row["x"] for row in rows)]) / 1e4
    rows = [row for row in rows if row["x"] >= floor]
    x = drawing.log("x", "absolute difference from fp32", [row["x"] for row in rows] + limits, "~e")
    y = drawing.log("y", "share of values that differ more", [row["y"] for row in rows], "~%")
    outputs = len({row["output"] for row in rows})
    detail = {"strokeDash": {"field": "output", "title": "output"}} if outputs > 1 else {}
    encoding = {"x": x, "y": y, "color": drawing.color_by("side", [name for name, _ in judged]), **detail}
    lines = [drawing.line_at(limit, "x", "@limit", f"tolerance {limit:g}") for limit in limits]
    spec = drawing.plot("Differences, and the tolerance", [drawing.steps(encoding), *lines], rows)
    alt = "Share of output values that differ from fp32 by more than x, and the tolerance"
    return Picture("differences", alt, spec)


def _survival(side: str, bins: Rows) -> Iterable[dict[str, Any]]:
    by_output: dict[str, list[tuple[float, float]]] = {}
    for row in bins:
        by_output.setdefault(row["output"], []).append((float(row["low"]), float(row["share"])))
    for output, shares in by_output.items():
        above = 0.0
        for low, share in sorted(shares, reverse=True):
            above += share
            if low > 0 and above > 0:
                yield {"side": side, "output": output, "x": low, "y": min(above, 1.0)}


def latency(sides: Sequence[tuple[str, Revision]]) -> Picture | None:
    """The share of calls that take at most x, for both models, up to the 99th percentile."""
    rows = [
        {"side": name, "model": model, "x": float(row[column]), "y": float(row["quantile"])}
        for name, side in sides
        for row in side.latency
        for model, column in (("fp32", "fp32_ms"), ("INT8", "int8_ms"))
        if row.get(column)
    ]
    if not rows:
        return None
    axis = {"format": "~g", "tickCount": 6, "labelOverlap": "greedy", "labelSeparation": 8, "grid": False}
    x = {"field": "x", "type": "quantitative", "title": "milliseconds in a call", "axis": axis}
    encoding: drawing.Spec = {
        "x": {**x, "scale": {"type": "log", "nice": False}},
        "y": {"field": "y", "type": "quantitative", "title": "share of calls", "axis": {"format": "%"}},
        "color": drawing.color_by("model", ["fp32", "INT8"]),
    }
    if len(sides) > 1:
        dashes = {"domain": ["this", "base"], "range": [[1, 0], [4, 3]]}
        encoding["strokeDash"] = {"field": "side", "legend": {"orient": "top", "title": None}, "scale": dashes}
    spec = drawing.plot("Latency of both models", [drawing.steps(encoding)], rows)
    return Picture("latency", "Distribution of latency of both models at the serving batch", spec)
