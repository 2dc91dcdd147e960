"""The pictures of a sweep: speed against error and size, and the effect of each setting."""

from collections.abc import Sequence
from typing import Any

from stages.report import drawing
from stages.report.drawing import Picture
from stages.report.experiments.ranking import Row, differing_params
from stages.report.text import is_number, setting

BROAD = 2 * drawing.WIDTH + 60


def pictures(rows: Sequence[Row]) -> list[Picture]:
    """Both pictures of rows measured on one machine; none if fewer than two rows can be compared."""
    # The best is drawn last, on top of the others.
    measured = [row for row in reversed(rows) if row.comparable]
    if len(measured) < 2:
        return []
    return [tradeoff(measured), parallel(measured, differing_params([row.revision.params for row in rows]))]


def tradeoff(rows: Sequence[Row]) -> Picture:
    """Every experiment by error and speed-up, with names on the Pareto front."""
    points = [
        {
            "kind": _kind(row),
            "x": row.error,
            **dict(zip(("y", "low", "high"), row.speedup, strict=True)),
            "size": row.size,
            "name": row.name if row.front else "",
            "label": _label(row),
        }
        for row in rows
    ]
    spec = drawing.pareto(points, "Speed, error and size (area)", "largest difference from fp32", _kinds(rows))
    spec["width"] = BROAD
    alt = "Speed-up of each experiment against its largest difference from fp32"
    return Picture("pareto", alt, spec, broad=True)


def parallel(rows: Sequence[Row], keys: Sequence[str]) -> Picture:
    """One line per experiment, across the params that differ and the resulting figures; thick on the Pareto front."""
    columns: dict[str, list[Any]] = {
        **{key.removeprefix("quantize."): [row.revision.params.get(key) for row in rows] for key in keys},
        "size, MB": [row.size for row in rows],
        "error": [row.error for row in rows],
        "speed-up": [row.speedup[0] for row in rows],
    }
    lines: list[dict[str, Any]] = []
    ticks: list[dict[str, Any]] = []
    for name, values in columns.items():
        places, marks = _places(list(values))
        ticks += [{"column": name, "place": place, "text": text} for text, place in marks]
        for row, place in zip(rows, places, strict=True):
            point = {"row": row.name, "kind": _kind(row), "column": name, "place": place, "label": _label(row)}
            lines.append(point | {"width": 4 if row.front else 1.5})
    axis = {"labelAngle": 0, "labelPadding": 6}
    axes: drawing.Spec = {
        "x": {"field": "column", "type": "nominal", "sort": list(columns), "title": None, "axis": axis},
        "y": {"field": "place", "type": "quantitative", "axis": None, "scale": {"domain": [-0.1, 1.1]}},
    }
    line: drawing.Spec = {
        **axes,
        "detail": {"field": "row"},
        "color": drawing.color_by("kind", _kinds(rows)),
        "strokeWidth": {"field": "width", "type": "quantitative", "scale": None},
    }
    dot = {**axes, "color": line["color"], **drawing.ON_HOVER}
    text = {**axes, "text": {"field": "text"}}
    layers = [
        drawing.layer("line", line, opacity=0.75),
        drawing.layer("point", dot, filled=True, size=45, opacity=1),
        *(
            drawing.layer("text", text, align="left", dx=7, dy=13 if lower else -7, color="@ink")
            | {"data": {"values": [tick for tick in ticks if (tick["place"] < 0.5) == lower]}}
            for lower in (True, False)
        ),
    ]
    spec = drawing.plot("What each setting led to", layers, lines)
    spec["width"] = BROAD
    alt = "Params of each experiment, and the size, error and speed-up that they led to"
    return Picture("parallel", alt, spec, broad=True)


def _places(values: Sequence[Any]) -> tuple[list[float], list[tuple[str, float]]]:
    """The place of each value on its axis, from 0 to 1, and the marks of that axis (text, place)."""
    if all(map(is_number, values)):
        low, high = min(values), max(values)
        span = (high - low) or 1.0
        marks = [(f"{low:.3g}", 0.0)] + ([(f"{high:.3g}", 1.0)] if high > low else [])
        return [(value - low) / span for value in values], marks
    names = sorted({setting(value) for value in values})
    place = {name: index / max(len(names) - 1, 1) for index, name in enumerate(names)}
    return [place[setting(value)] for value in values], list(place.items())


def _kind(row: Row) -> str:
    return "gate open" if row.open else "gate closed"


def _kinds(rows: Sequence[Row]) -> list[str]:
    return sorted(set(map(_kind, rows)), reverse=True)


def _label(row: Row) -> str:
    ratio, low, high = row.speedup
    speed = f"speed-up {ratio:.4g} ({low:.4g} to {high:.4g})"
    return f"{row.name}: {speed}, error {row.error:.4g}, {row.size:.4g} MB, {_kind(row)}"
