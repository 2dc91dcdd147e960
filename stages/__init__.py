"""The pipeline: one package a stage, run as `python -m stages.NAME` from the repository root."""

import os
import signal
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

INTERRUPTED = "Interrupted: nothing half-written is left behind."


class _WhenUsed(ModuleType):
    """Stands for a module until somebody reads an attribute of it."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _interrupted(_number: int, _frame: object) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + signal.SIGINT)


# onnx-ir imports them to compute with symbolic dimensions, which no stage does: half a second and 34 MB a process.
for _name in ("onnx_ir._symbolic_shapes", "sympy"):
    sys.modules.setdefault(_name, _WhenUsed(_name))

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].count(".") == 1:
    # A stage is about to load its libraries, which takes half a second; `signals.install` comes after that.
    signal.signal(signal.SIGINT, _interrupted)
