"""SIGINT, SIGTERM and SIGHUP end a stage, whatever code is running, and nothing is published afterwards.

A signal raises an exception, so that every `with` and `finally` cleans up. Libraries may swallow it: the training loops
of scikit-learn catch KeyboardInterrupt and return a half-trained model. So the signal is also remembered:
`raise_if_stopped`, called before anything is put in place, raises it again, and `command` exits with its code.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG: Final = 1


class TerminatedError(BaseException):
    """SIGTERM, or SIGHUP as the terminal closes; KeyboardInterrupt is its counterpart for SIGINT."""


class _State:
    received: int | None = None
    deferring: bool = False


_STATE: Final = _State()


def install() -> None:
    """Handle the signals from now on. Call it in the main thread, as Python requires."""
    for number in _STOPPING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _on_signal)
    if "DVC_STAGE" in os.environ:  # what a killed dvc leaves running would write beside the next run
        die_with_parent(signal.SIGTERM)


def die_with_parent(number: int) -> None:
    """Let Linux send this process the signal `number` when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def ignore(*, raising: bool = True) -> None:
    """Ignore the signals until the process ends: its outcome is decided.

    A signal that arrived before is raised; without `raising` it is only remembered.
    """
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if raising:
        raise_if_stopped()


def received() -> int | None:
    """The signal that arrived, or None."""
    return _STATE.received


def raise_if_stopped() -> None:
    """Raise the signal that arrived, if any, in case a library swallowed it: KeyboardInterrupt or TerminatedError."""
    if _STATE.received is not None:
        raise KeyboardInterrupt if _STATE.received == signal.SIGINT else TerminatedError


@contextmanager
def deferred() -> Iterator[None]:
    """Let the block end before a signal is raised: for renames that belong together."""
    _STATE.deferring = True
    try:
        yield
    finally:
        _STATE.deferring = False
    raise_if_stopped()


def _on_signal(number: int, _frame: FrameType | None) -> None:
    _STATE.received = number
    if not _STATE.deferring:
        raise_if_stopped()
