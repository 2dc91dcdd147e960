"""ONNX files on disk: reading one, or saying in a sentence what the file is instead; writing one; size on disk.

A model is two files, `<model>` and `<model>.data`, because DVC demands that every declared out exists. The second
holds the large weights beyond `LARGE_BYTES`; below, it says in a line that it holds none.
"""

import math
import mmap
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from stages.common.base.errors import MissingInputError, StageError
from stages.common.base.files import replacing
from stages.common.model import file_kind

LARGE_BYTES = 1_000_000_000
"""Weights above this go into the sidecar. One protobuf message ends at 2 GiB, and work on a model needs room in it."""

NO_DATA = b"No external data: the weights are in the model file itself.\n"
"""The sidecar of a model that needs none. Not empty, as DVC warns of each empty out in every command."""

INLINE_BYTES = 1024
"""Smaller tensors stay in the model file: shape inference reads shapes and axes there."""

ALIGNMENT = 4096
"""Offsets in the sidecar are multiples of a page, so that ONNX Runtime can map the weights instead of copying them."""


_DATA_FIELDS = frozenset(
    {f"{kind}_data" for kind in ("raw", "float", "double", "int32", "int64", "uint64", "external")} | {"data_location"}
)

_SUB_BYTE_BITS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
}


def read(path: Path, made_by: str) -> onnx.ModelProto:
    """Read a model with its weights, wherever they are stored.

    The weights of a large model stay on disk: its tensors keep referring to their file, now by its absolute path, and
    `array` maps them. External data are followed through symbolic and hard links, which DVC's cache makes of them.

    Args:
        path: of the model.
        made_by: the stage that writes it, named if it is missing.

    Raises:
        MissingInputError: there is no such file.
        StageError: the file is no ONNX model that this version of onnx can read, or weights of it are missing.
    """
    model = _parse(path, made_by)
    for tensor in _external(model):
        _locate(tensor, path)
    if weight_bytes(model) <= LARGE_BYTES:
        _take_in(model)
    return model


def array(tensor: TensorProto) -> np.ndarray:
    """The values of a tensor, mapped where they are external: then they cannot be written to."""
    if not uses_external_data(tensor):
        values: np.ndarray = numpy_helper.to_array(tensor)
        return values
    if tensor.data_type in _SUB_BYTE_BITS:
        held = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=bytes(_mapped(tensor)))
        return array(held)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.frombuffer(_mapped(tensor), dtype).reshape(tuple(tensor.dims))


def external_files(model: onnx.ModelProto) -> list[Path]:
    """The files that hold weights of a model that was read; none if it holds all of them itself."""
    return [Path(location) for location in dict.fromkeys(_entries(tensor)["location"] for tensor in _external(model))]


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a model and its sidecar, in place at once. The same model gives the same bytes, whatever stood there.

    Raises:
        StageError: the model does not fit into a file even with its initializers beside it.
    """
    with staged(model, path):
        pass


@contextmanager
def staged(model: onnx.ModelProto, path: Path) -> Iterator[Path]:
    """Write a model under a temporary name, yield that name, and put model and sidecar in place if the block ends well.

    The block is where a result is tried before it is published: the yielded file loads and runs.

    Raises:
        StageError: as `write`.
    """
    sidecar = external_data(path)
    with replacing(path) as temporary, replacing(sidecar) as data:
        if weight_bytes(model) <= LARGE_BYTES:
            data.write_bytes(NO_DATA)
            _serialize(_self_contained(model), temporary)
            yield temporary
        else:
            graph_only = _move_weights(model, data)
            _serialize(graph_only, temporary)
            yield temporary
            for tensor in _external(graph_only):
                tensor.external_data[0].value = sidecar.name
            _serialize(graph_only, temporary)


def size_mb(path: Path) -> float:
    """Size on disk in MB (1e6 bytes), external data included."""
    data = external_data(path)
    sidecar = data.stat().st_size if data.exists() else 0
    return (path.stat().st_size + (0 if sidecar == len(NO_DATA) else sidecar)) / 1e6


def external_data(path: Path) -> Path:
    """Where the weights of `path` stand if they do not fit into the model file: `<model>.onnx.data`."""
    return path.with_name(path.name + ".data")


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, in the graph, its subgraphs and its functions."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all tensors of a model, from their shapes: the size of a model too large to serialize."""
    return sum(tensor_bytes(tensor) for tensor in tensors(model))


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes of one tensor in raw form, from its shape and type; of text, what its strings hold."""
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    if tensor.data_type == TensorProto.UNDEFINED:
        return 0
    bits: int = _SUB_BYTE_BITS.get(tensor.data_type) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    elements: int = math.prod(tensor.dims)
    return (elements * bits + 7) // 8


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors_of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _tensors_of_graph(graph)


def _external(model: onnx.ModelProto) -> Iterator[TensorProto]:
    return (tensor for tensor in tensors(model) if uses_external_data(tensor))


def _parse(path: Path, made_by: str) -> onnx.ModelProto:
    if not path.exists():
        raise MissingInputError(path, made_by)
    called = path.as_posix()
    if path.is_dir():
        raise StageError(f"{called} is a folder. Name the .onnx file in it.")
    size = path.stat().st_size
    if size == 0:
        raise StageError(f"{called} is empty. Export the model again.")
    with path.open("rb") as file:
        instead = file_kind.instead(file.read(file_kind.HEAD_BYTES))
    if instead:
        raise StageError(f"{called} {instead}")
    if size > onnx.checker.MAXIMUM_PROTOBUF:
        raise StageError(
            f"{called} is {size / 1e9:.1f} GB in one file, and protobuf ends at 2 GB. "
            "Export the model with its weights as external data."
        )
    try:
        # Without the format, onnx goes by the name of the file: one that ends in .json would be read as JSON.
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise StageError(f"{called} {file_kind.damage(path)}") from error
    _check_versions(model, called)
    return model


def _check_versions(model: onnx.ModelProto, called: str) -> None:
    if not model.graph.node and not model.graph.output:
        raise StageError(f"{called} holds no graph, so it is no ONNX model, or an empty one. Export the model again.")
    if model.ir_version > onnx.IR_VERSION:
        raise StageError(
            f"{called} has IR version {model.ir_version}, and onnx {onnx.__version__} reads up to "
            f"{onnx.IR_VERSION}. Export it with an older IR version, or upgrade onnx and onnxruntime."
        )
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise StageError(
                f"{called} has opset {opset.version}, and onnx {onnx.__version__} knows up to {newest}. "
                "Export it with an older opset, or upgrade onnx and onnxruntime."
            )


def _locate(tensor: TensorProto, model_path: Path) -> None:
    """Point an external tensor to its file by absolute path, from which byte and how far.

    Raises:
        StageError: the file is missing, lies outside of the model's folder, or is shorter than the model says.
    """
    entries = _entries(tensor)
    location = entries.get("location", "")
    place = f"{model_path.as_posix()} keeps the weight {tensor.name} in {location!r}"
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    if not location or ".." in parts or PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor:
        raise StageError(f"{place}, outside of its own folder. Save the model with its data beside it.")
    file = model_path.parent / location
    if not file.is_file():
        raise StageError(f"{place}, and {file.as_posix()} is missing. Put that file beside the model.")
    size = file.stat().st_size
    offset, length = int(entries.get("offset", 0)), tensor_bytes(tensor)
    if offset < 0 or offset + length > size:
        with file.open("rb") as stream:
            instead = file_kind.instead(stream.read(file_kind.HEAD_BYTES))
        if instead:
            raise StageError(f"{file.as_posix()}, which holds weights of {model_path.as_posix()}, {instead}")
        raise StageError(
            f"{place} at bytes {offset} to {offset + length}, and {file.as_posix()} has {size}: "
            "it was cut short, or belongs to another model. Copy both files again."
        )
    _refer(tensor, str(file.resolve()), offset, length)


def _refer(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _mapped(tensor: TensorProto) -> memoryview:
    entries = _entries(tensor)
    offset, length = int(entries["offset"]), int(entries["length"])
    if length == 0:
        return memoryview(b"")
    with Path(entries["location"]).open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))[offset : offset + length]


def _take_in(model: onnx.ModelProto) -> None:
    """Load every external weight into the model itself."""
    for tensor in _external(model):
        tensor.raw_data = bytes(_mapped(tensor))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _serialize(model: onnx.ModelProto, path: Path) -> None:
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except (ValueError, EncodeError) as error:
        raise StageError(
            "The model is over 2 GB without its initializers, which protobuf cannot hold. "
            "Turn the tensors of its Constant nodes into initializers."
        ) from error


def _move_weights(model: onnx.ModelProto, data: Path) -> onnx.ModelProto:
    """Write the large initializers of `model` to `data`; return a copy that refers to them there.

    Not onnx's own writer, for three reasons: it appends to a file that exists, it changes the model it is given, and
    it needs a second copy of all weights to be undone.
    """
    copy = onnx.ModelProto()
    _copy_fields(model, copy, {"graph"})
    _copy_fields(model.graph, copy.graph, {"initializer"})
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            if tensor_bytes(tensor) < INLINE_BYTES or tensor.data_type == TensorProto.STRING:
                copy.graph.initializer.add().CopyFrom(tensor)
                continue
            file.write(bytes(-file.tell() % ALIGNMENT))
            offset = file.tell()
            file.write(_raw(tensor))
            moved = copy.graph.initializer.add()
            _copy_fields(tensor, moved, _DATA_FIELDS)
            _refer(moved, data.name, offset, file.tell() - offset)
    return copy


def _self_contained(model: onnx.ModelProto) -> onnx.ModelProto:
    if not external_files(model):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _take_in(copy)
    return copy


def _raw(tensor: TensorProto) -> bytes | memoryview:
    if uses_external_data(tensor):
        return _mapped(tensor)
    held = tensor if tensor.HasField("raw_data") else numpy_helper.from_array(numpy_helper.to_array(tensor))
    return bytes(held.raw_data)


def _copy_fields(source: Any, target: Any, leave: Collection[str]) -> None:
    for field, value in source.ListFields():
        if field.name in leave:
            continue
        if field.is_repeated:
            getattr(target, field.name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
