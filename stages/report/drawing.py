"""Drawing with Vega-Lite through vl-convert, without browser or network: themes, scales, and the shared plots.

A colour in a specification is a token such as `@ink`, which a theme replaces by a hexadecimal colour (PNG) or a CSS
variable (SVG in a page).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import vl_convert

Spec = dict[str, Any]
Theme = Literal["light", "dark", "page"]

TOKENS = ("ink", "grid", "base", "int8", "fp32", "limit", "warn")
_HEX = {
    "light": ("#1f2328", "#d1d9e0", "#818b98", "#0969da", "#bc4c00", "#cf222e", "#9a6700"),
    "dark": ("#f0f6fc", "#3d444d", "#9198a1", "#4493f8", "#f0883e", "#f85149", "#d29922"),
}
WIDTH, HEIGHT = 330, 210
VERSION = "5.20"
ON_HOVER: Spec = {"description": {"field": "label"}}


@dataclass(frozen=True)
class Picture:
    """One picture in Vega-Lite; `alt` describes it in words, and `broad` gives it the full width of a page."""

    name: str
    alt: str
    spec: Spec
    broad: bool = False

    def svg(self) -> str:
        """An SVG on one line whose colours are CSS variables named after the tokens."""
        text = vl_convert.vegalite_to_svg(_themed(self.spec, "page"), vl_version=VERSION)
        return " ".join(str(text).splitlines())

    def png(self, theme: Theme) -> bytes:
        """A PNG with a transparent background, at twice the size for sharp text."""
        data: bytes = vl_convert.vegalite_to_png(_themed(self.spec, theme), vl_version=VERSION, scale=2)
        return data


def pareto(
    rows: Sequence[Mapping[str, Any]], title: str, x_title: str, kinds: Sequence[str], limit: float | None = None
) -> Spec:
    """Named points with intervals, and a line at `limit` on the x axis.

    Rows have kind, x, y, low, high, size, label (on hover) and name (beside the point).
    """
    x, y = {**scale("x", x_title), "axis": {"tickCount": 5}}, scale("y", "speed-up")
    color = color_by("kind", kinds)
    size = {"field": "size", "type": "quantitative", "legend": None, "scale": {"range": [40, 320], "zero": True}}
    places = [row["x"] for row in rows] + ([] if limit is None else [limit])
    third = (max(places) - min(places)) / 3
    left, right = f"datum.x < {min(places) + third}", f"datum.x > {max(places) - third}"
    sides = [
        ("left", 10, -9, left),
        ("center", 0, -14, f"!({left} || {right})"),
        ("right", -10, -9, f"{right} && !({left})"),
    ]
    return plot(
        title,
        [
            *([] if limit is None else [line_at(limit, "x", "@limit", "limit")]),
            layer("rule", {"x": x, **interval("low", "high", "speed-up"), "color": color}, strokeWidth=1.5),
            layer("point", {"x": x, "y": y, "size": size, "color": color, **ON_HOVER}, filled=True, opacity=0.9),
            *(
                layer("text", {"x": x, "y": y, "text": {"field": "name"}}, align=align, dx=dx, dy=dy, color="@ink")
                | {"transform": [{"filter": condition}]}
                for align, dx, dy, condition in sides
            ),
        ],
        rows,
    )


def layer(mark: str, encoding: Spec, **options: Any) -> Spec:
    return {"mark": {"type": mark, **options}, "encoding": encoding}


def steps(encoding: Spec) -> Spec:
    return layer("line", encoding, interpolate="step-after", strokeWidth=2)


def interval(low: str, high: str, title: str) -> Spec:
    """The encoding of a vertical line between the fields `low` and `high`."""
    return {"y": scale(low, title), "y2": {"field": high}}


def scale(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False, "nice": True}}


def log(field: str, title: str, values: Sequence[float], label: str) -> Spec:
    """A logarithmic scale from one power of ten to another, a tick at each; labels that overlap are left out."""
    ends = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    ticks = [10.0**power for power in range(ends[0], ends[1] + 1)]
    axis = {"values": ticks, "format": label, "labelOverlap": "greedy"}
    scale = {"type": "log", "domain": [ticks[0], ticks[-1]]}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def color_by(field: str, domain: Sequence[str]) -> Spec:
    tokens = {"base": "@base", "this": "@int8", "INT8": "@int8", "fp32": "@fp32", "tried": "@warn"}
    tokens |= {"gate open": "@int8", "gate closed": "@base"}
    scale = {"domain": list(domain), "range": [tokens[name] for name in domain]}
    legend = {"orient": "top", "title": None, "symbolType": "stroke", "symbolStrokeWidth": 3}
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend if len(domain) > 1 else None}


def line_at(value: float, axis: Literal["x", "y"], color: str = "@grid", label: str = "") -> Spec:
    place = {axis: {"datum": value}}
    mark = {"type": "rule", "strokeWidth": 1.5, "strokeDash": [5, 3], "color": color}
    rule: Spec = {"data": {"values": [{}]}, "mark": mark, "encoding": place}
    if not label:
        return rule
    text = {"type": "text", "align": "right", "dx": -4, "dy": 8, "baseline": "top", "color": color, "text": label}
    return {"data": rule["data"], "layer": [rule, {"mark": text, "encoding": {**place, "y": {"value": 0}}}]}


def plot(title: str, layers: Sequence[Spec], rows: Sequence[Mapping[str, Any]]) -> Spec:
    text = {"labelColor": "@ink", "titleColor": "@ink", "labelFontSize": 12, "titleFontSize": 12}
    lines = {"gridColor": "@grid", "domainColor": "@grid", "tickColor": "@grid", "gridOpacity": 0.6, "offset": 5}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": None,
        "width": WIDTH,
        "height": HEIGHT,
        "title": title,
        "data": {"values": list(rows)},
        "layer": list(layers),
        "config": {
            "font": "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif",
            "axis": {**text, **lines, "titleFontWeight": "normal"},
            "legend": text,
            "title": {"color": "@ink", "fontSize": 14, "anchor": "start"},
            "text": {"fontSize": 12},
            "view": {"stroke": None},
        },
    }


def _themed(spec: Spec, theme: Theme) -> Spec:
    colors = [f"var(--{token})" for token in TOKENS] if theme == "page" else _HEX[theme]
    text = json.dumps(spec)
    for token, color in zip(TOKENS, colors, strict=True):
        text = text.replace(f'"@{token}"', f'"{color}"')
    themed: Spec = json.loads(text)
    return themed
