"""ONNX files on disk: reading one, or saying in a sentence what the file is instead; its size with external data."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from stages.common.errors import MissingInputError, StageError


def read(path: Path, made_by: str) -> onnx.ModelProto:
    """Read a model.

    Args:
        path: of the model.
        made_by: the stage that writes it, named if it is missing.

    Raises:
        MissingInputError: there is no such file.
        StageError: the file is no ONNX model.
    """
    if not path.exists():
        raise MissingInputError(path, made_by)
    if path.stat().st_size == 0:
        raise StageError(f"{path.as_posix()} is empty. Export the model again.")
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise StageError(f"{path.as_posix()} is no ONNX model, or was cut short. Export it again.") from error
    if not model.graph.node and not model.graph.output:
        raise StageError(f"{path.as_posix()} holds no graph. Export the model again.")
    return model


def size_mb(path: Path) -> float:
    """Size on disk in MB (1e6 bytes), external data included."""
    total = path.stat().st_size
    data = external_data(path)
    return (total + (data.stat().st_size if data.exists() else 0)) / 1e6


def external_data(path: Path) -> Path:
    """Where the weights of `path` stand if they do not fit into the model file: `<model>.onnx.data`."""
    return path.with_name(path.name + ".data")
