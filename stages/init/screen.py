"""What init prints: what it did, and what comes next."""

from stages.init.stage import Adoption

SHOWN = 6


def render(adoption: Adoption) -> str:
    """A line for each kind of change, then the next steps."""
    lines = []
    for label, names in (
        ("Added", adoption.added),
        ("Added to", adoption.merged),
        ("Replaced", adoption.replaced),
        ("Older than this version (--upgrade replaces them)", adoption.older),
        ("Changed by you, and left as they are; compare them with this version", adoption.kept),
    ):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"{label}: {', '.join(names[:SHOWN])}{more}.")
    if not lines:
        return "Nothing to do: this version of the pipeline is here already."
    at = adoption.folder.relative_to(adoption.root).as_posix()
    where = "" if at == "." else f"{at}/"
    return "\n".join(
        [
            *lines,
            "",
            "Next:",
            f"1. pip install -r {where}requirements-int8.txt -r {where}models/requirements.txt",
            f"2. Set export.source in {where}params.yaml to your model, and add its file, or the code that makes it,",
            f"   to the deps of export in {where}dvc.yaml: then export follows your training stage.",
            f"3. dvc repro {where}dvc.yaml",
        ]
    )
