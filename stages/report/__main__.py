"""Print the evidence as Markdown: the verdict first, then what changed against another revision.

Reads   metrics/*.json and params.yaml as they stand, and, with --base, as that revision has them in git.
Writes  nothing: the Markdown goes to stdout.
Params  gate, parity (the limits beside the figures).
"""

import argparse

from stages.common.base import command, params
from stages.report import markdown, revision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--base", metavar="REV", help="compare with this revision, e.g. origin/main; default: nothing")


def main(arguments: argparse.Namespace) -> None:
    """Read both sides, and print."""
    base = revision.at(arguments.base) if arguments.base else None
    print(markdown.report(revision.workspace(), base, params.load()))


if __name__ == "__main__":
    command.run("report", __doc__, main, add_arguments)
