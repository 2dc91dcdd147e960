"""Fingerprint the machine: what INT8 runs on here, and whether two measurements can be compared.

This stage runs first, so it also checks all of params.yaml: a bad value stops the pipeline before any work is done.

Reads   the system, params.yaml.
Writes  metrics/details/search_target.json (what quantize.method auto and plan depend on), metrics/host.json.
Params  all are checked; parity, quantize.method, quantize.plan and serving go into the search target.
"""

import argparse

from stages.common.base import command, params
from stages.host import figures, screen, stage


def main(_arguments: argparse.Namespace) -> None:
    """Write the fingerprint, and print it."""
    checked = params.load()
    machine = stage.run()
    figures.write(machine, checked)
    command.show(screen.render(machine))


if __name__ == "__main__":
    command.run("host", __doc__, main)
