"""Look at an ONNX model before anything runs: what it holds, what each method would quantize, and likely trouble.

Reads   the model; no evaluation data.
Writes  nothing.
Params  none; the params to start from are printed, ready to paste.
"""

import argparse
from pathlib import Path

from stages.common.base import command
from stages.inspect import screen, stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model."""
    parser.add_argument("model", type=Path, help="an .onnx file")


def main(arguments: argparse.Namespace) -> None:
    """Inspect the model and print what was found."""
    print(screen.render(stage.run(arguments.model)))


if __name__ == "__main__":
    command.run("inspect", __doc__, main, add_arguments)
