"""What init prints: what it did, and what comes next."""

from stages.common.base import command
from stages.common.base.pipeline import PACKAGE
from stages.init.layout import REQUIREMENTS
from stages.init.stage import Adoption

SHOWN = 6

LABELS = {
    "added": "Added",
    "merged": "Added to",
    "replaced": "Replaced",
    "removed": "Removed",
    "older": "Of another version (--upgrade brings this one)",
    "kept": "Changed by you and by this version in the same place, and left as they are",
}


def render(adoption: Adoption) -> str:
    """A line for each kind of change, then the next steps."""
    lines = []
    for kind, label in LABELS.items():
        names = adoption.files[kind]
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"{label}: {', '.join(names[:SHOWN])}{more}.")
    if not lines:
        return "Nothing to do: this version of the pipeline is here already."
    at = adoption.folder.relative_to(adoption.root).as_posix()
    where, layout = "" if at == "." else f"{at}/", adoption.layout
    home = f"{where}{layout.below}/" if layout.below else where
    if adoption.taken:
        lines.append(f"{adoption.taken}: so the pipeline is in {home}, and its stages are {layout.prefix}export, ...")
    params = ", ".join(f"{where}{folder}/params.yaml".replace("//", "/") for folder in layout.folders.values())
    paths = f" Paths there are relative to {home or 'the root'}." if home and not layout.models else ""
    paths = f" Paths there are relative to {home}<model>/." if layout.models else paths
    steps = [
        f"pip install -r {home}{REQUIREMENTS} -r {home}models/requirements.txt",
        f"Set export.source in {params.removeprefix('/')} to your model, and add its file, or the code that makes it, "
        f"to the deps of {layout.prefix}export in {where}dvc.yaml: then it follows your training stage.{paths}",
        f"dvc repro{f' {where}dvc.yaml' if where else ''}",
        *([f"python -m {PACKAGE}.report, in {where or 'the root'}, shows all models."] if layout.models else []),
    ]
    return "\n".join([*lines, "", "Next:", *(command.fold(f"{n}. {step}") for n, step in enumerate(steps, 1))])
