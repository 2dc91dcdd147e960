"""One bench at a time on this machine: two at once would disturb each other."""

import errno
import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common.base.errors import StageError

_FILE = "onnx-quantize-pipeline.bench.lock"


def lock_file() -> Path:
    """The file that every bench on this machine locks: in /tmp if that exists, whatever TMPDIR is."""
    shared = Path("/tmp")
    return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / _FILE


@contextmanager
def alone(path: Path | None = None) -> Iterator[int]:
    """Wait until no other bench runs, printing which one does, and yield the descriptor that holds the lock.

    The kernel releases the lock when the last process with the descriptor is gone, however it ended; workers inherit
    it, so that none of them still measures when the next bench starts.

    Raises:
        StageError: the file is a symbolic link, with which another user could make us write elsewhere.
    """
    path = path or lock_file()
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another bench on this machine: {_holder(descriptor)}.", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _sign(path)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    # In a sticky folder another user's file cannot be opened with O_CREAT or for writing; locking needs neither.
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        os.fchmod(descriptor, 0o666)
        return descriptor
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StageError(f"The lock {path} is a symbolic link. Remove it and run again.") from error
        raise


def _sign(path: Path) -> None:
    holder = {"pid": os.getpid(), "folder": str(Path.cwd()), "since": time.strftime("%H:%M:%S")}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
    except OSError:  # another user's file: whoever waits will not learn who holds it
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(holder, file)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} in {holder['folder']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown process"
