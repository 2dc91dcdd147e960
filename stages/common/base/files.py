"""Atomic outputs: each is written under a temporary name in the same folder, then renamed.

After SIGINT, SIGTERM or SIGHUP nothing is put in place, even if the code in between swallowed the signal.
"""

import csv
import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from stages.common.base import paths, signals
from stages.common.base.errors import MissingInputError, StageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""The text of numpy's error on a full disk, which has no error number and no file name."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)(?P<old>\.old)?\.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name for the file or folder `path`, and put it in place if the block succeeds.

    If the block raises (Ctrl-C and SIGTERM raise too), the temporary is removed and `path` stays as it was.
    """
    temporary = _temporary(path)
    try:
        with named(path):
            yield temporary
            signals.raise_if_stopped()
            with signals.deferred():
                _put_in_place(temporary, path)
    finally:
        _remove(temporary)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`. A folder cannot be replaced in one step, so the old one is renamed first."""
    if not (temporary.is_dir() and path.is_dir()):
        temporary.replace(path)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    try:
        path.rename(aside)
        temporary.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    finally:
        _remove(aside)


class Outputs:
    """Files that `together` puts in place at once."""

    def __init__(self) -> None:
        self.temporaries: dict[Path, Path] = {}

    def json(self, path: Path, tree: Mapping[str, Any]) -> None:
        """Write `tree` as indented JSON. NaN and infinities raise ValueError: write null, and the reason elsewhere."""
        text = json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False)
        self.temporaries[path] = _temporary(path)
        with named(path):
            self.temporaries[path].write_text(text + "\n", encoding="utf-8")

    def csv(
        self, path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], digits: Mapping[str, int] | None = None
    ) -> None:
        """Write a CSV file with Unix line ends; None is an empty field. `digits` rounds the floats of a column."""
        if digits:
            places = [digits.get(name) for name in header]
            rows = (
                [rounded_tree(value, place) if place else value for value, place in zip(row, places, strict=True)]
                for row in rows
            )
        self.temporaries[path] = _temporary(path)
        with named(path), self.temporaries[path].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)


@contextmanager
def together() -> Iterator[Outputs]:
    """Yield a collector of files; put all of them in place, in the order written, if the block succeeds.

    A signal takes effect before the first rename or after the last, so the evidence of one run never stands beside the
    headlines of another.
    """
    outputs = Outputs()
    try:
        yield outputs
        signals.raise_if_stopped()
        with signals.deferred():
            for path, temporary in outputs.temporaries.items():
                with named(path):
                    temporary.replace(path)
    finally:
        for temporary in outputs.temporaries.values():
            _remove(temporary)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write one JSON file atomically; see `Outputs.json`."""
    with together() as outputs:
        outputs.json(path, tree)


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read a JSON object written by the stage `made_by`.

    Raises:
        MissingInputError: the file does not exist.
        StageError: it does not hold a JSON object.
    """
    if not path.exists():
        raise MissingInputError(path, made_by)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(f"{path.as_posix()} is not valid JSON ({error}). Run {made_by} again.") from error
    if not isinstance(tree, dict):
        raise StageError(f"{path.as_posix()} does not hold a JSON object. Run {made_by} again.")
    return tree


def sha256(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file and the external data file beside it, if any."""
    digest = hashlib.sha256()
    for part in paths.files_of(path):
        with part.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def rounded(value: float | None, digits: int = 4) -> float | None:
    """`value` to `digits` significant digits; None for None, NaN and infinities (give the reason elsewhere)."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.{digits}g}")


def rounded_tree(tree: Any, digits: int = 4) -> Any:
    """A tree of mappings and lists with every float `rounded`."""
    if isinstance(tree, Mapping):
        return {key: rounded_tree(value, digits) for key, value in tree.items()}
    if isinstance(tree, list):
        return [rounded_tree(value, digits) for value in tree]
    return rounded(tree, digits) if isinstance(tree, float) else tree


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an OSError name the file being written, instead of no file, its temporary name, or the source of a copy."""
    try:
        yield
    except OSError as error:
        if _SHORT_WRITE.fullmatch(str(error)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path.as_posix()) from error
        unnamed = error.errno in _FULL and (error.filename is None or error.filename2 is not None)
        if unnamed or _TEMPORARY.fullmatch(Path(str(error.filename)).name):
            error.filename, error.filename2 = path.as_posix(), None
        raise


@contextmanager
def scratch(stage: str) -> Iterator[Path]:
    """A temporary folder, removed at the end; if its disk is full, the error names the folder that holds it."""
    with signals.deferred():  # between making the folder and noting that it must be removed
        made = TemporaryDirectory(prefix=f"{stage}-")
    with made as folder, named(Path(folder).parent):
        yield Path(folder)


def _temporary(path: Path) -> Path:
    """A temporary name beside `path`; also makes the folder, and removes what killed processes left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for candidate in path.parent.glob(f".{path.name}.*.tmp"):
        match = _TEMPORARY.fullmatch(candidate.name)
        if match and match["name"] == path.name and not psutil.pid_exists(int(match["pid"])):
            if match["old"] and not path.exists():  # killed between two renames: this is the old content of `path`
                candidate.rename(path)
            else:
                _remove(candidate)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for folder, *_ in os.walk(path):  # what is in a read-only folder cannot be removed
            Path(folder).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
