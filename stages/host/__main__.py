"""Fingerprint the machine: what INT8 runs on here, and whether two measurements may be compared.

It runs first, so it also checks all of params.yaml: a bad value stops the pipeline before it works.

Reads   the system, params.yaml.
Writes  metrics/host.json.
Params  none of its own.
"""

import argparse

from tabulate import tabulate

from stages.common.base import command, files, params, paths
from stages.host.fingerprint import fingerprint


def main(_arguments: argparse.Namespace) -> None:
    """Write the fingerprint, and print it."""
    params.load()
    machine = fingerprint()
    files.write_json(paths.HOST, machine.metrics())
    print(tabulate(machine.rows(), tablefmt="plain"))
    print(f"\n{machine.sentence()}")


if __name__ == "__main__":
    command.run("host", __doc__, main)
