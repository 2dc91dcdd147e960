"""Our dvc.yaml adapted to a repository: folder, prefix, one stage per model, code or installed package."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from stages.common.base.pipeline import PACKAGE

REQUIREMENTS = "requirements-int8.txt"
"""What to install; for an installed package it pins the version, and every stage depends on it."""


@dataclass(frozen=True)
class Layout:
    """Where the pipeline is, relative to the dvc.yaml with its stages.

    Attributes:
        below: the folder of the pipeline, below the folder of dvc.yaml; empty if both are the same.
        models: names of models that share the code; each has its own folder in the folder of the pipeline.
        installed: whether the stages run an installed package instead of code in the repository.
    """

    below: str = ""
    models: tuple[str, ...] = ()
    installed: bool = False

    @property
    def prefix(self) -> str:
        """The prefix of the names of stages and plots."""
        return f"{self.below}_" if self.below else ""

    @property
    def folders(self) -> dict[str, str]:
        """The folders with a params.yaml, relative to dvc.yaml, by prefix of the names of plots."""
        if not self.models:
            return {self.prefix: self.below}
        return {f"{self.prefix}{model}_": str(PurePosixPath(self.below, model)) for model in self.models}


def dvc_yaml(text: str, layout: Layout) -> str:
    """This project's dvc.yaml for a layout; comments stay."""
    stages, *lists = re.split(r"(?m)^(?=metrics:$|plots:$|# For the model registry)", text)
    parts = ["\n".join(_stages(stages.rstrip().splitlines(), layout)) + "\n"]
    for part in lists:
        key = re.search(r"(?m)^\w+:\n", part)
        header, body = (part[: key.end()], part[key.end() :].rstrip()) if key else ("", part)
        parts.append("\n" + header + "".join(_moved(body, *where) + "\n" for where in layout.folders.items()))
    return "".join(parts)


def _stages(lines: list[str], layout: Layout) -> Iterator[str]:
    """The lines of the section `stages`: names, folders, commands and deps adapted."""
    up = "../" if layout.models else ""
    wdir = "/".join(filter(None, [layout.below, "${item.model}" if layout.models else ""]))
    pinned = ""
    for line in lines:
        if name := re.fullmatch(r"  (\w+):", line):
            yield f"  {layout.prefix}{name[1]}:"
            if layout.models:
                yield from ("    matrix:", f"      model: [{', '.join(layout.models)}]")
            if wdir:
                yield f"    wdir: {wdir}"
            pinned = f"      - {up}{REQUIREMENTS}"
        elif room := re.fullmatch(r"    cmd: python -m stages\.(\w+)", line):
            yield f"    cmd: {'PYTHONPATH=.. ' if layout.models else ''}python -m {PACKAGE}.{room[1]}"
        elif layout.installed and line.startswith("      - stages/"):
            if pinned:
                yield pinned
            pinned = ""
        elif re.match(r"      - (stages/|models$)", line):
            yield line.replace("- ", f"- {up}", 1)
        else:
            yield line


def _moved(body: str, before: str, folder: str) -> str:
    """Entries of metrics, plots or artifacts, with their names prefixed and their paths in `folder`."""
    if not folder:
        return body
    body = re.sub(r"(?m)^(  - )(\w+:)$", rf"\g<1>{before}\2", body)
    # Names of artifacts allow hyphens but no underscores.
    body = re.sub(r"(?m)^(  )(\w+:)$", rf"\g<1>{before.replace('_', '-')}\2", body)
    return re.sub(r"\b(metrics|artifacts)/", rf"{folder}/\1/", body)
