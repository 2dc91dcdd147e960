"""Judge whether the INT8 model still gives the answers of fp32, on the judge samples, in the serving batch.

Reads   artifacts/model.onnx, artifacts/model.int8.onnx (each with its .data), artifacts/eval/, metrics/details/nodes.csv.
Writes  metrics/details/parity_errors.csv, metrics/details/parity_scatter.csv, metrics/details/parity_worst.csv, metrics/parity.json.
Params  parity, serving; quantize, for its advice.

A miss is `passed: false` with exit code 0: the gate decides. With --abs-tol or --mean-tol other tolerances are tried
for every output: the outcome is printed, nothing is written, and a miss exits with 1.
"""

import argparse

from stages.common.base import command
from stages.parity import stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The tolerances to try."""
    parser.add_argument("--abs-tol", type=stage.tolerance, metavar="X", help="try this parity.abs_tol; writes nothing")
    parser.add_argument(
        "--mean-tol", type=stage.tolerance, metavar="Y", help="try this parity.mean_tol; writes nothing"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the stage, or a trial."""
    if arguments.abs_tol is not None or arguments.mean_tol is not None:
        return stage.trial(arguments.abs_tol, arguments.mean_tol)
    return stage.run()


if __name__ == "__main__":
    command.run("parity", __doc__, main, add_arguments)
