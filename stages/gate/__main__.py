"""Hold the metrics against the rules: exit 1 where one fails.

Inside `dvc exp run` a failed rule is printed and the exit code is 0, so that a sweep keeps the row of metrics.

Reads   metrics/quantize.json, metrics/parity.json, metrics/bench.json.
Writes  nothing.
Params  gate.
"""

import argparse
import os

from stages.common.base import command, files, params, paths
from stages.common.base.errors import StageError
from stages.common.rules import Evidence, Outcome, judge, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("--strict", action="store_true", help="exit 1 on a failed rule inside an experiment, too")


def main(arguments: argparse.Namespace) -> None:
    """Judge, print, and raise where a rule failed and the failure must stop the run."""
    limits = params.load().gate
    evidence = Evidence(
        quantize=files.read_json(paths.QUANTIZE, "quantize"),
        parity=files.read_json(paths.PARITY, "parity"),
        bench=files.read_json(paths.BENCH, "bench"),
    )
    verdicts = judge(evidence, limits)
    print(table(verdicts))
    failed = [each for each in verdicts if each.outcome is Outcome.FAILED]
    if not failed:
        print(f"\nThe gate is open: deploy {evidence.deploy}. {evidence.reason}")
        return
    sentences = " ".join(each.sentence for each in failed)
    sentence = f"The gate is shut: {sentences} Deploy {evidence.deploy}: {evidence.reason}"
    if "DVC_EXP_NAME" in os.environ and not arguments.strict:
        print(f"\n{sentence} (Exit 0 inside an experiment, so that its row is kept.)")
        return
    raise StageError(sentence)


if __name__ == "__main__":
    command.run("gate", __doc__, main, add_arguments)
