"""The pipeline: one package a stage, run as `python -m stages.NAME` from the repository root."""

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
