"""The pipeline: one package per stage, run as `python -m stages.NAME` from the repository root."""

import os
import signal
import sys
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036 that is what it is for
    sys.exit("Error: Python %d.%d is too old: 3.11 or newer is needed." % sys.version_info[:2])  # noqa: UP031

INTERRUPTED = "Interrupted: nothing half-written is left behind."


class _WhenUsed(ModuleType):
    """A module that is imported when an attribute of it is read."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _interrupted(_number: int, _frame: object) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + signal.SIGINT)


def _unhandled(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
    if isinstance(error, ModuleNotFoundError):
        print(
            f"Error: {sys.executable} has no module {error.name}. Activate the environment with the requirements "
            "(after `make repro`: . .venv/bin/activate).",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, place)


# ONNX Runtime reads it once, when it is loaded: its releases for Linux and macOS send usage data, in a thread of every
# process that is timed, and keep an identifier of the machine in the user's cache. `ORT_DISABLE_TELEMETRY=0` allows it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# onnx-ir imports them for symbolic dimensions, which no stage uses: half a second and 34 MB per process.
for _name in ("onnx_ir._symbolic_shapes", "sympy"):
    sys.modules.setdefault(_name, _WhenUsed(_name))

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].count(".") == 1:
    # Loading the libraries of a stage takes half a second; `signals.install` comes after that.
    signal.signal(signal.SIGINT, _interrupted)
    sys.excepthook = _unhandled
