"""Inspect an ONNX model before anything runs: its contents, what each method would quantize, and likely problems.

Reads   the model; no evaluation data.
Writes  nothing.
Params  none; it prints the params to start from, ready to paste.
"""

import argparse
from pathlib import Path

from stages.common.base import command
from stages.inspect import screen, stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="an .onnx file")


def main(arguments: argparse.Namespace) -> None:
    command.show(screen.render(stage.run(arguments.model)))


if __name__ == "__main__":
    command.run("inspect", __doc__, main, add_arguments)
