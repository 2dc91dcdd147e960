"""Put this pipeline into a DVC repository that exists already: at its root, or in a folder of it.

Reads   this checkout, and the repository.
Writes  what is missing there: stages/, models/, dvc.yaml, params.yaml, requirements-int8.txt, .dvc/plots/; nothing that
        exists is overwritten.
Params  none.
"""

import argparse
from pathlib import Path

from stages.common.base import command
from stages.init import screen, stage

CHECKOUT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, and the upgrade."""
    parser.add_argument(
        "path", type=Path, help="the root of a DVC repository, or a folder in it (made if it is missing)"
    )
    parser.add_argument(
        "--upgrade", action="store_true", help="replace files of an older version; those that you changed stay"
    )


def main(arguments: argparse.Namespace) -> None:
    """Install the pipeline, and print what was done and what comes next."""
    print(screen.render(stage.run(CHECKOUT, arguments.path, upgrade=arguments.upgrade)))


if __name__ == "__main__":
    command.run("init", __doc__, main, add_arguments)
