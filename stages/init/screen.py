"""What init prints: what it did, and the next steps."""

import shlex

from stages.common.base.pipeline import PACKAGE
from stages.init.layout import REQUIREMENTS
from stages.init.stage import Adoption

SHOWN = 6

LABELS = {
    "added": "Added",
    "merged": "Added to",
    "replaced": "Upgraded to this version, with your changes",
    "removed": "Removed",
    "older": "From another version (--upgrade replaces them)",
    "kept": "Not changed, as your changes conflict with this version",
}

CHANGES = ("added", "merged", "replaced", "removed")
"""Kinds that call for next steps."""


def render(adoption: Adoption) -> str:
    lines = []
    for kind, label in LABELS.items():
        if names := list(dict.fromkeys(_whole(name) if kind == "added" else name for name in adoption.files[kind])):
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"{label}: {', '.join(names[:SHOWN])}{more}.")
    if not lines:
        return "Nothing to do: this version of the pipeline is installed already."
    if not any(adoption.files[kind] for kind in CHANGES):
        return "\n".join(lines)
    at = adoption.folder.relative_to(adoption.root).as_posix()
    where, layout = "" if at == "." else f"{at}/", adoption.layout
    home = f"{where}{layout.below}/" if layout.below else where
    if adoption.taken:
        lines.append(f"{adoption.taken}, so the pipeline is in {home}, and its stages are {layout.prefix}export, ...")
    params = ", ".join(f"{where}{folder}/params.yaml".replace("//", "/") for folder in layout.folders.values())
    model = "the model of each" if layout.models else "your model"
    paths = (
        f" Paths there are relative to {home}{'<model>/' if layout.models else ''}." if home or layout.models else ""
    )
    steps = [shlex.join(["pip", "install", "-r", f"{home}{REQUIREMENTS}", "-r", f"{home}models/requirements.txt"])]
    if any(name.endswith("params.yaml") for kind in ("added", "merged") for name in adoption.files[kind]):
        steps.append(
            f"Set export.source in {params.removeprefix('/')} to {model}, and add its file, or the code that makes it, "
            f"to the deps of {layout.prefix}export in {where}dvc.yaml: then it follows your training stage.{paths}"
        )
    steps.append(shlex.join(["dvc", "repro", *([f"{where}dvc.yaml"] if where else [])]))
    if layout.models:
        steps.append(f"python -m {PACKAGE}.report, in {home or 'the root'}, shows all models.")
    numbered = [f"{number}. {step}" for number, step in enumerate(steps, 1)]
    return "\n".join([*lines, "", "Next:", *numbered])


def _whole(name: str) -> str:
    """The folder of the code instead of each file in it."""
    before, found, _ = name.partition("stages/")
    return before + found if found else name
