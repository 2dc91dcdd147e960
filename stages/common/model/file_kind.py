"""Files that are not ONNX models: what they are, and what to do about it."""

from pathlib import Path
from typing import IO

import onnx

HEAD_BYTES = 512
"""Enough of a file to tell what it is."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the model it points to. Run git lfs pull."),
    (0, b"outs:\n", "is a DVC pointer, not the model it points to. Run dvc pull, and name the model."),
    (4, b"ORTM", "is in ONNX Runtime's own format (.ort). Give the .onnx file that it was made from."),
    (4, b"TFL3", "is a TensorFlow Lite model. Convert it to ONNX first."),
    (0, b"GGUF", "is a GGUF model. Export the model to ONNX first."),
    (0, b"\x89HDF", "is an HDF5 file, as Keras writes. Export the model to ONNX first."),
    (0, b"PK\x03\x04", "is a zip archive (a PyTorch checkpoint is one). Unpack it, or export the model to ONNX first."),
    (0, b"\x1f\x8b", "is compressed with gzip. Unpack it first."),
    (0, b"\x80\x04\x95", "is a Python pickle. Export the model to ONNX first."),
    (0, b"\x80\x05\x95", "is a Python pickle. Export the model to ONNX first."),
    (8, b'{"', "is a safetensors file: weights without a graph. Export the model to ONNX first."),
)
"""Files often given instead of a model: the offset of the magic bytes, the bytes, and the message."""

_MODEL_FIELDS = frozenset(field.number for field in onnx.ModelProto.DESCRIPTOR.fields)


def instead(head: bytes) -> str | None:
    """What a file with these first bytes is, and what to do about it; None if it may be a model."""
    for offset, magic, message in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return message
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "is a web page, not a model: the download failed. Download the file itself."
    return None


def damage(path: Path) -> str:
    """Why a file is not a readable protobuf: truncated, or something else altogether.

    Walks the fields of the outermost message (protobuf's wire format): a truncated model begins with fields of
    ModelProto, the last of which ends beyond the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        fields = 0
        while (at := file.tell()) < size:
            key = _varint(file)
            number, wire = key >> 3, key & 7
            if number not in _MODEL_FIELDS or wire not in (0, 2):
                break
            fields += 1
            length = _varint(file)
            if wire == 2:
                end = file.tell() + length
                if end > size and fields == 1:
                    break
                if end > size:
                    return (
                        f"is truncated: it has {size} bytes, but its field at byte {at} ends at {end}. "
                        "Copy or export it again."
                    )
                file.seek(end)
    return "is not an ONNX model: its bytes are not a ModelProto. Export the model again."


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return value
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
    return value
