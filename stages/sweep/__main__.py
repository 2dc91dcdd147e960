"""Run a sweep on a Ray cluster, one experiment per node at a time; each becomes a DVC experiment.

A node clones the commit from the git remote, pulls data from the DVC remote, runs `dvc exp run`, and pushes the
experiment to both. A second call runs only what is missing. Nodes need the project's environment and
`ray start --address=... --resources '{"bench": 1}'`. On one machine `dvc exp run --queue` needs no Ray.

Reads   the commit and its remotes.
Writes  experiments on the git remote and the DVC remote; nothing here.
Params  any, by -S.
"""

import argparse

from stages.common.base import command
from stages.sweep import screen, stage

EXIT_CODES = (
    "Exit codes: 0 the git remote has all experiments, whatever their verdicts; 1 an experiment failed, or the sweep "
    "did; 2 wrong usage or params."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-S",
        "--set-param",
        metavar="KEY=VALUES",
        action="append",
        required=True,
        help="settings as in dvc exp run, e.g. quantize.method=dynamic,static; several -S give all combinations",
    )
    parser.add_argument("--remote", default="origin", help="git remote to clone from and push to (default: origin)")
    parser.add_argument("--address", help="address of the Ray cluster (default: RAY_ADDRESS, else this machine's)")
    parser.add_argument(
        "--same-host",
        action="store_true",
        help="use only nodes of the most frequent kind of machine, so that latencies can be compared",
    )


def main(arguments: argparse.Namespace) -> int:
    result = stage.run(
        arguments.set_param, remote=arguments.remote, address=arguments.address, same_host=arguments.same_host
    )
    command.show(screen.render(result))
    return 1 if result.failed else 0


if __name__ == "__main__":
    command.run("sweep", __doc__, main, add_arguments, EXIT_CODES)
