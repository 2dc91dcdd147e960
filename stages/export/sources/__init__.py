"""Frameworks that export converts to ONNX: one module each, behind the interface of `stages.export.framework`.

A module imports its framework only in the functions that use it: a model of one framework needs no other.
"""

from pathlib import Path
from typing import Any

from stages.common.model import model_file
from stages.export.framework import Framework
from stages.export.sources import onnx, sklearn

FRAMEWORKS: tuple[Framework, ...] = (onnx, sklearn)


def framework_of(model: Any) -> Framework | None:
    """The framework that `model` belongs to, or None."""
    return next((framework for framework in FRAMEWORKS if framework.knows(model)), None)


def load(path: Path) -> tuple[Framework, Any]:
    """Read a model file.

    Raises:
        StageError: the file is damaged, or not a model.
    """
    return onnx, model_file.read(path, "your own export")
