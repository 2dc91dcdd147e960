"""Markdown building blocks: escaped text, numbers with units, tables, collapsed parts."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from tabulate import tabulate

UNKNOWN = "–"


def escape(text: object) -> str:
    """Text for a paragraph or a cell, with names such as `a|b`, `<b>` or `*c*` shown literally."""
    line = " ".join(str(text).split())
    line = re.sub(r"[\\`*\[|]|~~|(?<![^\W_])_|_(?![^\W_])", lambda match: "\\" + match[0], line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: object) -> str:
    """Text as code, for a paragraph or a cell."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def block(text: str) -> str:
    """A command as a code block."""
    return f"```\n{text}\n```"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a figure is a number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: Any, unit: str = "") -> str:
    """A value to four significant digits, with its unit; a dash for None and NaN."""
    if value is None or value != value:  # noqa: PLR0124
        return UNKNOWN
    if not is_number(value):
        return escape(value)
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if "e+" in shown:
        shown = f"{value:,.0f}"
    return f"{shown}{'' if unit in ('', '×') else ' '}{unit}"


def interval(ratio: float | None, low: float | None, high: float | None) -> str:
    """A speed-up with the ends of its 95 % interval; a dash if unknown."""
    return UNKNOWN if number(ratio) == UNKNOWN else f"{number(ratio, '×')} ({number(low)} to {number(high)})"


def setting(value: Any) -> str:
    """A value of `params.yaml` in the syntax of `dvc exp run -S`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(setting, value))}]" if isinstance(value, list) else str(value)


def plural(count: int, noun: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub table; cells must be escaped."""
    text = tabulate(list(rows), headers=header, tablefmt="github", disable_numparse=True)
    return "\n".join(re.sub(r" {2,}\|", " |", line) for line in str(text).splitlines())


def collapsed(summary: str, *parts: str) -> str:
    """Parts that a click on the summary expands."""
    return f"<details><summary>{summary}</summary>\n\n" + "\n\n".join(parts) + "\n\n</details>"


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
