"""Fingerprint the machine: what INT8 runs on here, and whether two measurements may be compared.

Reads   nothing but the system.
Writes  metrics/host.json.
Params  none.
"""

import argparse

from tabulate import tabulate

from stages.common.base import command, files, paths
from stages.host.fingerprint import fingerprint


def main(_arguments: argparse.Namespace) -> None:
    """Write the fingerprint, and print it."""
    machine = fingerprint()
    files.write_json(paths.HOST, machine.metrics())
    print(tabulate(machine.rows(), tablefmt="plain"))
    print(f"\n{machine.sentence()}")


if __name__ == "__main__":
    command.run("host", __doc__, main)
