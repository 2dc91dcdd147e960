"""Install the pipeline: copy its files, merge its YAML into existing files, and record what was installed."""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from stages.common.base import files
from stages.common.base.errors import StageError
from stages.common.base.pipeline import DVC_YAML
from stages.init import merge
from stages.init.layout import REQUIREMENTS, Layout, dvc_yaml

RECORD = ".onnx-int8.json"
"""The record of what was installed, in the folder of the pipeline: by it an upgrade detects the user's changes."""

BELOW = "int8"
"""The folder of the pipeline, and the prefix of its stages, if names are taken."""

OURS = ("stages", "models", "artifacts", "metrics", REQUIREMENTS)
"""Names that the pipeline needs for itself in its folder."""

MERGED: Mapping[str, Callable[[str, str, str], str]] = {
    DVC_YAML: merge.added,
    "params.yaml": merge.added,
    ".dvcignore": merge.added_lines,
}
"""Files that may exist already: ours are added to them."""

CODE = frozenset({".py", ".css", ".html", ".js"})

KINDS = ("added", "merged", "replaced", "removed", "older", "kept", "current")

Entry = Mapping[str, str]
"""The record of a file: the `sha256` of our content; for a merged file instead the text before us (`theirs`) and our
text (`ours`)."""


@dataclass(frozen=True)
class Origin:
    """Where the files come from.

    Attributes:
        root: the checkout of this project, or the folder of its files in the installed package.
        requirement: the line that installs the package; empty for a checkout, whose code is copied.
    """

    root: Path
    requirement: str = ""


@dataclass(frozen=True)
class Adoption:
    """What was done.

    Attributes:
        root: the root of the DVC repository.
        folder: the folder of the dvc.yaml that has our stages.
        layout: where the pipeline is, relative to that folder.
        taken: why the pipeline has a folder of its own and its stages a prefix; empty for a pipeline without.
        files: names relative to the root, by what was done: added, merged (ours was added to other content), replaced
            or removed (of an older version), older (an upgrade would replace it), kept (changes of the user conflict
            with this version), current (nothing to do).
    """

    root: Path
    folder: Path
    layout: Layout
    taken: str
    files: Mapping[str, Sequence[str]]


def run(origin: Origin, folder: Path, *, models: Sequence[str] = (), upgrade: bool = False) -> Adoption:
    """Install into `folder`; a second time changes nothing.

    Args:
        origin: where the files come from.
        folder: the root of a DVC repository, or a folder in it.
        models: the names of models that share the pipeline, with a folder each; empty for a single model, or to keep
            the models of an earlier call.
        upgrade: whether to replace what an older version installed and the user has not changed.

    Raises:
        StageError: the folder is not in a DVC repository, or its content collides with the pipeline.
    """
    folder = folder.resolve()
    root = _root(folder)
    if folder.is_relative_to(origin.root) or origin.root.is_relative_to(folder):
        raise StageError(f"{folder} is the checkout that init runs from. Name the repository to install into.")
    if _record(folder).get("below"):  # the folder of a pipeline whose dvc.yaml is one level up
        folder = folder.parent
    installed = bool(origin.requirement)
    for below in ("", BELOW):
        record = _record(folder / below)
        if record.get("below") == below:
            layout = Layout(below, tuple(models or record["models"]), installed)
            entries: Mapping[str, Entry] = record["files"]
            return _install(origin, root, folder, layout, taken=record["taken"], installed=entries, upgrade=upgrade)
    taken = _first_taken(folder, [name for name in OURS if not (installed and name == "stages")])
    try:
        if not taken:
            return _install(origin, root, folder, Layout("", tuple(models), installed))
    except merge.CollisionError as error:
        taken = str(error)
    if _first_taken(folder, [BELOW]):
        raise StageError(f"{taken}, and {folder / BELOW} exists too. Name another folder, such as {folder / 'onnx'}.")
    try:
        return _install(origin, root, folder, Layout(BELOW, tuple(models), installed), taken=taken)
    except merge.CollisionError as error:
        place = shlex.quote(str(folder / BELOW))
        raise StageError(f"{error}, so this pipeline needs a folder of its own. Name one: init {place}.") from error


def _record(folder: Path) -> dict[str, Any]:
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as error:
        raise StageError(f"{file} is not valid JSON ({error}). Restore it from git: init wrote it.") from error
    return cast(dict[str, Any], record)


def _first_taken(folder: Path, names: Sequence[str]) -> str:
    return next((f"{name} exists already" for name in names if (folder / name).exists()), "")


def _install(
    origin: Origin,
    root: Path,
    folder: Path,
    layout: Layout,
    *,
    taken: str = "",
    installed: Mapping[str, Entry] = MappingProxyType({}),
    upgrade: bool = False,
) -> Adoption:
    entries = dict(installed)
    contents: dict[Path, bytes] = {}
    done: dict[str, list[str]] = {kind: [] for kind in KINDS}
    sources = list(_files(origin, root, folder, layout))
    for target, ours in sources:
        name = target.relative_to(root).as_posix()
        kind, content, entry = _judged(target, ours, installed.get(name), name)
        if kind == "replaced" and not upgrade:
            kind = "older"
        if kind in ("added", "merged", "replaced"):
            contents[target] = content
        if kind not in ("older", "kept"):
            entries[name] = entry
        done[kind].append(name)
    obsolete = set(installed) - {target.relative_to(root).as_posix() for target, _ in sources}
    for name in sorted(name for name in obsolete if "sha256" in installed[name] and (root / name).exists()):
        unchanged = _sha256((root / name).read_bytes()) == installed[name]["sha256"]
        done[("removed" if upgrade else "older") if unchanged else "kept"].append(name)
    for target, content in contents.items():
        with files.replacing(target.resolve()) as temporary:  # a link stays one
            temporary.write_bytes(content)
    for name in done["removed"]:
        (root / name).unlink()
        del entries[name]
    record = {"below": layout.below, "models": list(layout.models), "taken": taken, "files": entries}
    if contents or done["removed"]:
        files.write_json(folder / layout.below / RECORD, record)
    return Adoption(root, folder, layout, taken, done)


def _judged(target: Path, ours: bytes, known: Entry | None, name: str) -> tuple[str, bytes, Entry]:
    """What to do with a file, its new content, and its record."""
    current = target.read_bytes() if target.exists() else b""
    if join := MERGED.get(target.name):
        text, theirs = ours.decode(), known["theirs"] if known else _text(current, name)
        entry = {"theirs": theirs, "ours": text}
        content = join(theirs, text, name)
        if known and known["ours"] != text and current:
            merged = merge.three_way(_text(current, name), join(theirs, known["ours"], name), content)
            kind = "kept" if merged is None else "replaced" if merged.encode() != current else "current"
            return kind, (merged or "").encode(), entry
        kind = "merged" if current and not known else "current" if current else "added"
        return kind, content.encode(), entry
    entry = {"sha256": _sha256(ours)}
    if not target.exists() and known and target.parent.name == "models":
        return "current", ours, entry  # users may delete the example
    if not target.exists():
        return "added", ours, entry
    if current == ours or (known and known["sha256"] == entry["sha256"]):
        return "current", ours, entry
    return "replaced" if known and known["sha256"] == _sha256(current) else "kept", ours, entry


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise StageError(f"{name} is not UTF-8 text, which DVC cannot read either. Convert it first.") from error


def _root(folder: Path) -> Path:
    for candidate in (folder, *folder.parents):
        if (candidate / ".dvc").is_dir():
            return candidate
    raise StageError(f"{folder} is not in a DVC repository. Run git init and dvc init at its root first.")


def _files(origin: Origin, root: Path, folder: Path, layout: Layout) -> Iterator[tuple[Path, bytes]]:
    """Each file that the pipeline needs, with its content."""

    def ours(name: str) -> bytes:
        return (origin.root / name).read_bytes()

    home = folder / layout.below
    if not origin.requirement:
        for source in sorted(path for path in (origin.root / "stages").rglob("*") if path.suffix in CODE):
            yield home / source.relative_to(origin.root), source.read_bytes()
    for name in ("models/__init__.py", "models/digits.py", "models/requirements.txt", ".dvcignore"):
        yield home / name, ours(name)
    pins = ours("requirements.txt") if not origin.requirement else f"{origin.requirement}\n".encode()
    yield home / REQUIREMENTS, pins
    for place in layout.folders.values():
        for name in ("params.yaml", "artifacts/.gitignore"):
            yield folder / place / name, ours(name)
    yield folder / DVC_YAML, dvc_yaml(ours(DVC_YAML).decode(), layout).encode()
    for source in sorted((origin.root / ".dvc" / "plots").glob("*.json")):
        yield root / ".dvc" / "plots" / source.name, source.read_bytes()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
