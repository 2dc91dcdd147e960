"""Install the pipeline: copy its files, merge its YAML into what is there, remember what was installed."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.common.base import files
from stages.common.base.errors import StageError
from stages.init import merge

INSTALLED = Path("stages/installed.json")
"""What was installed, so that an upgrade knows what the user changed."""

Hashes = dict[str, str]
"""SHA-256 of a file: `ours`, as this project has it, and `here`, as it was written: with what it was added to."""

MERGED = {"dvc.yaml": merge.added, "params.yaml": merge.added, ".dvcignore": merge.added_lines}
"""Files that may exist already: ours go below what they hold."""

RENAMED = {"requirements.txt": "requirements-int8.txt"}
"""Files that the repository has a better claim to."""


@dataclass(frozen=True)
class Adoption:
    """What was done.

    Attributes:
        folder: the pipeline was put into.
        root: of the DVC repository.
        added: files that are new.
        merged: files that had other content, to which ours was added.
        replaced: files of an older version that the user had not changed.
        older: files of an older version that the user had not changed, for an upgrade to replace.
        kept: files of an older version that the user changed: they stay.
    """

    folder: Path
    root: Path
    added: tuple[str, ...]
    merged: tuple[str, ...]
    replaced: tuple[str, ...]
    older: tuple[str, ...]
    kept: tuple[str, ...]


def run(checkout: Path, folder: Path, *, upgrade: bool) -> Adoption:
    """Install into `folder`; twice is once.

    Args:
        checkout: of this project.
        folder: the root of a DVC repository, or a folder in it.
        upgrade: replace files of an older version that the user has not changed.

    Raises:
        StageError: the folder is not in a DVC repository, or holds something that the pipeline cannot stand beside.
    """
    folder = folder.resolve()
    root = _root(folder)
    if folder.is_relative_to(checkout) or checkout.is_relative_to(folder):
        raise StageError(f"{folder} is the checkout that init runs from. Name the repository that it should go into.")
    record = folder / INSTALLED
    installed: dict[str, Hashes] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if not installed and (folder / "stages").exists():
        raise StageError(
            f"{folder / 'stages'} exists already, and is not this pipeline's. Put the pipeline into a folder of its "
            f"own: python -m stages.init {folder / 'int8'}"
        )
    contents: dict[Path, bytes] = {}
    names: dict[str, list[str]] = {"added": [], "merged": [], "replaced": [], "older": [], "kept": []}
    for source, target in _files(checkout, folder, root):
        name = target.relative_to(root).as_posix()
        new = source.read_bytes()
        ours, known = _sha256(new), installed.get(name)
        if not target.exists():
            kind = "added"
        elif known is None and target.name in MERGED:
            new = MERGED[target.name](target.read_text(encoding="utf-8"), new.decode(), name).encode()
            kind = "merged"
        elif target.read_bytes() == new or (known is not None and known["ours"] == ours):
            continue
        elif known is not None and known["here"] == _sha256(target.read_bytes()) and known["here"] == known["ours"]:
            kind = "replaced" if upgrade else "older"
        else:
            kind = "kept"
        names[kind].append(name)
        if kind in ("added", "merged", "replaced"):
            contents[target] = new
            installed[name] = {"ours": ours, "here": _sha256(new)}
    for target, content in contents.items():
        with files.replacing(target) as temporary:
            temporary.write_bytes(content)
    if contents:
        files.write_json(record, installed)
    return Adoption(folder, root, **{kind: tuple(listed) for kind, listed in names.items()})


def _root(folder: Path) -> Path:
    for candidate in (folder, *folder.parents):
        if (candidate / ".dvc").is_dir() and (candidate / ".git").exists():
            return candidate
    raise StageError(f"{folder} is not in a DVC repository. Run git init and dvc init at its root first.")


def _files(checkout: Path, folder: Path, root: Path) -> Iterator[tuple[Path, Path]]:
    """Each file of this project that the pipeline needs, and where it goes."""
    for source in sorted((checkout / "stages").rglob("*.py")):
        yield source, folder / source.relative_to(checkout)
    for name in ("models/__init__.py", "models/digits.py", "models/requirements.txt", "artifacts/.gitignore"):
        yield checkout / name, folder / name
    for name in (*MERGED, *RENAMED):
        yield checkout / name, folder / RENAMED.get(name, name)
    for source in sorted((checkout / ".dvc" / "plots").glob("*.json")):
        yield source, root / ".dvc" / "plots" / source.name


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
