"""Print the evidence as Markdown for a pull request: the verdict first, then what changed against another revision.

Reads   metrics/, params.yaml and dvc.lock as they stand; with --base, also as git has them at that revision.
Writes  nothing: the Markdown goes to stdout.
Params  none. The decision is read from metrics/gate.json.
"""

import argparse

from stages.common.base import command
from stages.report import screen, stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--base", metavar="REV", help="compare with this revision, e.g. origin/main (default: none)")


def main(arguments: argparse.Namespace) -> None:
    """Read, compare, print."""
    print(screen.render(stage.run(arguments.base)))


if __name__ == "__main__":
    command.run("report", __doc__, main, add_arguments)
