"""Show the evidence for a pull request: the verdict first, then what changed since another revision.

In the folder above those of several models, it shows one report per model, under its name.
With --experiments, it shows all experiments of this commit in one table, best first, and the command that applies the
best one.

Reads   metrics/, params.yaml and dvc.lock in the workspace; with --base, also at that git revision; with
        --experiments, as each experiment committed them.
Writes  Markdown to stdout; with --pictures and --html, the files named there.
Params  none. The decision is read from metrics/gate.json.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stages.common.base import command
from stages.report import page, pictures, screen, stage
from stages.report.drawing import Picture
from stages.report.experiments import pictures as sweep_pictures
from stages.report.experiments import ranking, reading
from stages.report.experiments import screen as sweep_screen

Drawn = Callable[[], list[Picture]]
"""Draws the pictures of a part, if they are wanted."""

Part = tuple[str, Drawn, Callable[[str], str]]
"""A model's name (empty if it is the only one), what draws its pictures, and what renders its Markdown with them."""

Shown = tuple[str, list[Part]]
"""The title and the parts of the page."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--base", metavar="REV", help="compare with this revision, e.g. origin/main (default: none)")
    what.add_argument("--experiments", action="store_true", help="rank the experiments of this commit")
    parser.add_argument(
        "--pictures",
        metavar="FOLDER",
        type=Path,
        help="write the pictures as PNG files into this folder, and link them in the Markdown",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=Path,
        help="write the report and its pictures as a self-contained HTML page; without --pictures, instead of Markdown",
    )


def main(arguments: argparse.Namespace) -> None:
    title, parts = _experiments() if arguments.experiments else _revision(arguments.base)
    if arguments.html:
        page.write(arguments.html, title, _text(parts, lambda _, drawn: page.figures(drawn())))
        if not arguments.pictures:
            print(f"Wrote {arguments.html}.")
            return
    print(
        _text(parts, lambda name, drawn: page.links(drawn(), arguments.pictures / name) if arguments.pictures else "")
    )


def _text(parts: list[Part], shown: Callable[[str, Drawn], str]) -> str:
    """The Markdown of all parts; `shown` renders the pictures of each."""
    return "\n\n".join(render(shown(name, drawn)) for name, drawn, render in parts)


def _revision(base: str | None) -> Shown:
    reports = stage.by_model(base)
    parts: list[Part] = [
        (name, partial(pictures.pictures, report), partial(screen.render, report, name=name))
        for name, report in reports.items()
    ]
    if len(reports) > 1:
        parts.insert(0, ("", list, lambda _: screen.table_of(reports)))
    head = next(iter(reports.values())).head.name
    return f"Quantization report, {head}", parts


def _experiments() -> Shown:
    sweep = reading.read()
    machines = ranking.rank(sweep)
    main = next(iter(machines.values()), [])
    return f"Experiments of {sweep.commit}", [
        ("", partial(sweep_pictures.pictures, main), partial(sweep_screen.render, sweep, machines))
    ]


if __name__ == "__main__":
    command.run("report", __doc__, main, add_arguments)
