"""Check the metrics against the rules, and decide which model to deploy.

Metrics that do not belong together, or to the current models, params and code, are refused (exit 1).

Reads   metrics/host.json, metrics/quantize.json, metrics/parity.json, metrics/bench.json, metrics/details/parity.json,
        metrics/details/bench.json, metrics/details/export.json; dvc.lock and what it lists.
Writes  metrics/details/gate.json, metrics/gate.json.
Params  gate, serving.
"""

import argparse
import os

from stages.common.base import command, params
from stages.common.base.errors import StageError
from stages.gate import figures, screen, stage

EXIT_CODES = (
    "Exit codes: 0 the gate is open; 1 it is closed, or the metrics cannot be judged; 2 wrong usage or params. A "
    "closed gate exits 0 inside `dvc exp run`, so that DVC keeps the experiment, unless --strict is given."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("--strict", action="store_true", help="exit 1 for a closed gate, even inside an experiment")


def main(arguments: argparse.Namespace) -> None:
    """Decide, write and print; raise if the gate is closed and that must stop the run."""
    result = stage.run(params.load())
    figures.write(result)
    command.show(screen.render(result))
    verdict = screen.verdict(result)
    if not result.open and (arguments.strict or "DVC_EXP_NAME" not in os.environ):
        raise StageError(verdict)
    note = "" if result.open else " (Exit 0 inside an experiment, so that DVC keeps it.)"
    print(f"{verdict}{note}")


if __name__ == "__main__":
    command.run("gate", __doc__, main, add_arguments, EXIT_CODES)
