"""Show the evidence for a pull request: the verdict first, then what changed against another revision.

With --experiments: all experiments of this commit in one table, best first, and the command that applies the best.

Reads   metrics/, params.yaml and dvc.lock as they stand; with --base, also as git has them at that revision; with
        --experiments, instead, as each experiment committed them.
Writes  Markdown to stdout; with --pictures and --html, the files named there.
Params  none. The decision is read from metrics/gate.json.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from stages.common.base import command
from stages.report import page, pictures, screen, stage
from stages.report.drawing import Picture
from stages.report.experiments import pictures as sweep_pictures
from stages.report.experiments import ranking, reading
from stages.report.experiments import screen as sweep_screen

Shown = tuple[str, Callable[[], list[Picture]], Callable[[str], str]]
"""A title, what draws the pictures, and what renders the Markdown with them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
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
        help="write the report with its pictures as one HTML page that needs no network; without --pictures, in place "
        "of the Markdown",
    )


def main(arguments: argparse.Namespace) -> None:
    """Read, compare, print or write."""
    title, drawn, render = _experiments() if arguments.experiments else _revision(arguments.base)
    if arguments.html:
        page.write(arguments.html, title, render(page.figures(drawn())))
        if not arguments.pictures:
            print(f"Wrote {arguments.html}.")
            return
    print(render(page.links(drawn(), arguments.pictures) if arguments.pictures else ""))


def _revision(base: str | None) -> Shown:
    report = stage.run(base)
    title = f"Quantization report, {report.head.name}"
    return title, lambda: pictures.pictures(report), lambda drawn: screen.render(report, drawn)


def _experiments() -> Shown:
    sweep = reading.read()
    machines = ranking.rank(sweep)
    title = f"Experiments of {sweep.commit}"
    main = next(iter(machines.values()), [])
    keys = ranking.differing_params([row.revision.params for row in main])
    return (
        title,
        lambda: sweep_pictures.pictures(main, keys),
        lambda drawn: sweep_screen.render(sweep, machines, drawn),
    )


if __name__ == "__main__":
    command.run("report", __doc__, main, add_arguments)
