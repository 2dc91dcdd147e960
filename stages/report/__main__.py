"""Show the evidence for a pull request: the verdict first, then what changed against another revision.

Reads   metrics/, params.yaml and dvc.lock as they stand; with --base, also as git has them at that revision.
Writes  Markdown to stdout; with --pictures and --html, the files named there.
Params  none. The decision is read from metrics/gate.json.
"""

import argparse
from pathlib import Path

from stages.common.base import command
from stages.report import page, pictures, screen, stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--base", metavar="REV", help="compare with this revision, e.g. origin/main (default: none)")
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
        help="write the report with its pictures as one HTML page that needs no network, in place of the Markdown",
    )


def main(arguments: argparse.Namespace) -> None:
    """Read, compare, print or write."""
    report = stage.run(arguments.base)
    if arguments.html:
        drawn = page.figures(pictures.pictures(report))
        page.write(arguments.html, f"Quantization report, {report.head.name}", screen.render(report, drawn))
        print(f"Wrote {arguments.html}.")
        return
    links = page.links(pictures.pictures(report), arguments.pictures) if arguments.pictures else ""
    print(screen.render(report, links))


if __name__ == "__main__":
    command.run("report", __doc__, main, add_arguments)
