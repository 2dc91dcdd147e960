"""One bench at a time on this machine: two that ran at once would time each other."""

import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILE = "onnx-quantize-pipeline.bench.lock"


def lock_file() -> Path:
    """The file that every bench of this machine locks: in /tmp where there is one, whatever TMPDIR says."""
    shared = Path("/tmp")
    return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / _FILE


@contextmanager
def alone(path: Path | None = None) -> Iterator[int]:
    """Wait until no other bench runs, say for whom, and yield the descriptor that holds the lock.

    The kernel releases the lock when the last process that holds the descriptor is gone, however it ends; measuring
    processes inherit it, so that none of them goes on while the next bench starts.
    """
    path = path or lock_file()
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another bench on this machine: {_holder(path)}.", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _sign(path)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    # Another user's file in a sticky folder may not be opened with O_CREAT, nor for writing; locking needs neither.
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.fchmod(descriptor, 0o666)
        return descriptor


def _sign(path: Path) -> None:
    try:
        path.write_text(
            json.dumps({"pid": os.getpid(), "folder": str(Path.cwd()), "since": time.strftime("%H:%M:%S")}),
            encoding="utf-8",
        )
    except PermissionError:  # another user's file: those who wait will not know our name
        return


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} in {holder['folder']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it did not leave its name"
