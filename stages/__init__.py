"""The pipeline: one package a stage, run as `python -m stages.NAME` from the repository root."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

_LAZY = frozenset({"onnx_ir._symbolic_shapes", "sympy"})
"""What onnx-ir imports to compute with symbolic dimensions, which no stage does: half a second and 34 MB a process."""


class _LazyFinder(PathFinder):
    """Finds these modules so that they are loaded once somebody uses them, if anybody does."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target) if fullname in _LAZY else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


sys.meta_path.insert(0, _LazyFinder)


def _interrupted(_number: int, _frame: object) -> None:
    os.write(2, b"Interrupted: nothing half-written is left behind.\n")
    os._exit(128 + signal.SIGINT)


if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].count(".") == 1:
    # A stage is about to load its libraries, which takes half a second; `signals.install` comes after that.
    signal.signal(signal.SIGINT, _interrupted)
