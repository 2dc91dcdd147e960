"""Markdown as a self-contained HTML page: light and dark, tables that sort with a click."""

import html
import re
from collections.abc import Iterable
from pathlib import Path

from markdown_it import MarkdownIt

from stages.common.base.files import replacing
from stages.report.drawing import Picture, Theme

THEMES: tuple[Theme, ...] = ("light", "dark")
HERE = Path(__file__).parent


def write(path: Path, title: str, markdown: str) -> None:
    text = page(title, markdown)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(title: str, markdown: str) -> str:
    """The page; `markdown` may hold HTML, but names in it must be escaped."""
    body = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    template = (HERE / "page.html").read_text(encoding="utf-8")
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    parts = {"title": html.escape(title), "style": style, "script": script, "body": body}
    return re.sub(r"\{\{(title|style|script|body)\}\}", lambda match: parts[match[1]], template)


def figures(pictures: Iterable[Picture]) -> str:
    """Pictures for the page, as one HTML block."""
    drawn = ""
    for picture in pictures:
        kind = ' class="broad"' if picture.broad else ""
        drawn += f'<figure{kind} role="img" aria-label="{html.escape(picture.alt)}">{picture.svg()}</figure>'
    return f'<div class="pictures">{drawn}</div>' if drawn else ""


def links(pictures: Iterable[Picture], folder: Path) -> str:
    """Pictures for Markdown, two per row, in the reader's light or dark theme; writes the PNG files."""
    tags = []
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        for theme in THEMES:
            with replacing(folder / f"{picture.name}-{theme}.png") as temporary:
                temporary.write_bytes(picture.png(theme))
        place = html.escape((folder / picture.name).as_posix())
        tags.append(
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{place}-dark.png">'
            f'<img src="{place}-light.png" width="{98 if picture.broad else 49}%" '
            f'alt="{html.escape(picture.alt)}"></picture>'
        )
    return f"<p>{''.join(tags)}</p>" if tags else ""
