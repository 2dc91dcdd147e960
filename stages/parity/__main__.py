"""Judge whether the INT8 model still gives the same answers as fp32, on the judge samples, in batches as in production.

Reads   artifacts/model.onnx, artifacts/model.int8.onnx (each with its .data), artifacts/eval/,
        metrics/details/nodes.csv, metrics/details/plan.json.
Writes  metrics/parity.json; in metrics/details/: parity.json, parity_errors.csv, parity_scatter.csv, parity_worst.csv.
Params  parity, serving; quantize, whose settings the advice varies.

A miss is `passed: false` with exit code 0: the gate decides. --abs-tol, --mean-tol and --max-nrmse judge the figures of
the last run by other tolerances, for every output that they apply to: the outcome is printed at once, nothing is
written, and a miss exits with 1.
"""

import argparse
import math

from stages.common.base import command, params
from stages.parity import figures, screen, stage

TOLERANCES = ("abs_tol", "mean_tol", "max_nrmse")

EXIT_CODES = f"{command.EXIT_CODES} With a tolerance given, a miss exits with 1."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for key in TOLERANCES:
        option = "--" + key.replace("_", "-")
        parser.add_argument(option, type=tolerance, metavar="X", help=f"try this parity.{key}; write nothing")


def main(arguments: argparse.Namespace) -> int:
    loaded = params.load()
    given = {key: getattr(arguments, key) for key in TOLERANCES if getattr(arguments, key) is not None}
    if given:
        trial = stage.try_tolerances(loaded, given)
        command.show(screen.render(trial))
        return 0 if trial.passed else 1
    result = stage.run(loaded)
    figures.write(result)
    command.show(screen.render(result))
    return 0


def tolerance(text: str) -> float:
    """Parse a tolerance: zero or more."""
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a tolerance: give a number of zero or more")
    return value


if __name__ == "__main__":
    command.run("parity", __doc__, main, add_arguments, EXIT_CODES)
