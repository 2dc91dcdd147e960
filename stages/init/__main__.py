"""Add this pipeline to an existing DVC repository, at its root or in a folder.

Reads   this checkout, or the installed package, and the repository.
Writes  what is missing there: dvc.yaml, params.yaml, models/, requirements-int8.txt, .dvc/plots/, and from a checkout
        the code, stages/. Overwrites nothing. If names are taken, it uses a folder int8/ and a prefix.
Params  none.
"""

import argparse
import json
import re
from importlib import metadata
from pathlib import Path

from stages.common.base import command
from stages.init import screen, stage

TEMPLATE = Path(__file__).with_name("template")
"""The files of the checkout that the wheel includes, such as params.yaml; setup.py puts them there."""

DISTRIBUTION = "onnx-quantize-pipeline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", type=Path, help="the root of a DVC repository, or a folder in it (created if it does not exist)"
    )
    parser.add_argument(
        "--models",
        type=_name,
        nargs="+",
        default=(),
        metavar="NAME",
        help="several models, each in a folder (DVC matrix)",
    )
    parser.add_argument("--upgrade", action="store_true", help="replace files of an older version; your changes stay")


def main(arguments: argparse.Namespace) -> None:
    origin = stage.Origin(Path(__file__).resolve().parents[2])
    if TEMPLATE.exists():
        origin = stage.Origin(TEMPLATE, requirement(metadata.distribution(DISTRIBUTION)))
    command.show(screen.render(stage.run(origin, arguments.path, models=arguments.models, upgrade=arguments.upgrade)))


def requirement(distribution: metadata.Distribution) -> str:
    """The requirement that installs this version: from the same commit if it was installed from one (PEP 610)."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if vcs := origin.get("vcs_info"):
        return f"{DISTRIBUTION} @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}"
    return f"{DISTRIBUTION}=={distribution.version}"


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", text) or text in stage.OURS:
        raise argparse.ArgumentTypeError(f"'{text}' is not a valid model name: use lowercase letters, digits, - and _")
    return text


if __name__ == "__main__":
    command.run("init", __doc__, main, add_arguments)
