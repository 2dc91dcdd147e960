"""ONNX files on disk: reading, writing, size; and what a file is that is not a model.

A model is two files, `<model>` and `<model>.data`, because DVC requires every declared out to exist. The second holds
the large weights of a model above `LARGE_BYTES`; otherwise it holds one line that says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from stages.common.base import paths
from stages.common.base.errors import MissingInputError, StageError
from stages.common.base.files import replacing
from stages.common.model import file_kind, ir_conversion

LARGE_BYTES = 1_000_000_000
"""Weights above this go into the external data file: a protobuf is limited to 2 GiB, and working on it takes space."""

NO_DATA = b"No external data: the weights are in the model file itself.\n"
"""The external data file of a model that needs none. Not empty, because DVC warns of empty outs in every command."""

ALIGNMENT = 4096
"""Offsets in the external data file are multiples of a page, so that ONNX Runtime can map the weights."""


class StoredTensor(ir.LazyTensor):  # type: ignore[misc]  # onnx-ir has no types
    """A tensor in an external data file; its values are mapped anew on each access, never cached."""

    def __init__(self, file: Path, offset: int, length: int, tensor: ir.TensorProtocol) -> None:
        self.file = file
        self.offset = offset
        shape = ir.Shape(tensor.shape)

        def mapped() -> ir.ExternalTensor:
            return ir.ExternalTensor(str(file), offset, length, tensor.dtype, shape=shape, name=tensor.name)

        super().__init__(mapped, dtype=tensor.dtype, shape=shape, name=tensor.name)


def read(path: Path, made_by: str) -> ir.Model:
    """Read a model written by the stage `made_by`. External data stays on disk, and is mapped when accessed.

    External data may be links into DVC's cache. In a model above `LARGE_BYTES` the initializers of subgraphs move to
    the main graph, the only place from which ONNX Runtime takes external data.

    Raises:
        MissingInputError: the file does not exist.
        StageError: it is not an ONNX model that this version of onnx can read, or some weights are missing.
    """
    model = ir_conversion.from_proto(_parse(path, made_by))
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _located(value.const_value, path)
        for node in graph:
            for name, attribute in node.attributes.items():
                if isinstance(attribute.value, ir.ExternalTensor):
                    node.attributes[name] = ir.AttrTensor(name, _located(attribute.value, path))
    if weight_bytes(model) > LARGE_BYTES:
        _lift_initializers(model)
    return model


@contextmanager
def staged(model: ir.Model, path: Path) -> Iterator[Path]:
    """Write a model under a temporary name, yield it for a trial, and put both files in place if the block succeeds.

    The same model gives the same bytes.

    Raises:
        StageError: the model does not fit into a file even without its initializers.
    """
    beside = paths.external_data(path)
    with replacing(path) as temporary, replacing(beside) as data:
        if weight_bytes(model) <= LARGE_BYTES:
            data.write_bytes(NO_DATA)
            _serialize(ir_conversion.to_proto(model), temporary)
            yield temporary
        else:
            offsets = _write_weights(model, data)
            for location in (data.name, beside.name):  # for the trial, then for publishing
                place = iter(offsets)
                proto = ir_conversion.to_proto(model, lambda _: (location, next(place)))  # noqa: B023
                _serialize(proto, temporary)
                if location == data.name:
                    yield temporary


def size_mb(path: Path) -> float:
    """Size on disk in MB (1e6 bytes), external data included."""
    data = paths.external_data(path)
    beside = data.stat().st_size if data.exists() else 0
    return (path.stat().st_size + (0 if beside == len(NO_DATA) else beside)) / 1e6


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor of a model: initializers and attributes, in the graph, its subgraphs and its functions."""
    for graph in model.graphs():
        yield from (value.const_value for value in graph.initializers.values() if value.const_value is not None)
    for container in (model.graph, *model.functions.values()):
        for node in container.all_nodes():
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR:
                    yield attribute.as_tensor()
                elif attribute.type == ir.AttributeType.TENSORS:
                    yield from attribute.as_tensors()


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all tensors of a model, from their shapes; text does not count."""
    unsized = (ir.DataType.STRING, ir.DataType.UNDEFINED)
    return sum(tensor.nbytes for tensor in tensors(model) if tensor.dtype not in unsized)


def stored_bytes(model: ir.Model) -> int:
    """Bytes that a model takes on disk, external data included."""
    if weight_bytes(model) <= LARGE_BYTES:
        return int(ir_conversion.to_proto(model).ByteSize())
    moved = sum(value.const_value.nbytes for value in ir_conversion.large_initializers(model))
    return int(ir_conversion.to_proto(model, lambda _: ("weights", 0)).ByteSize() + moved)


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
            f"{called} is {size / 1e9:.1f} GB in one file, above protobuf's limit of 2 GB. "
            "Export the model with external data."
        )
    try:
        # Without the format, onnx would read a file whose name ends in .json as JSON.
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise StageError(f"{called} {file_kind.damage(path)}") from error
    _check_versions(model, called)
    return model


def _check_versions(model: onnx.ModelProto, called: str) -> None:
    if not model.graph.node and not model.graph.output:
        raise StageError(f"{called} has no graph: it is not an ONNX model, or an empty one. Export the model again.")
    if model.ir_version > onnx.IR_VERSION:
        raise StageError(
            f"{called} has IR version {model.ir_version}, but onnx {onnx.__version__} reads up to "
            f"{onnx.IR_VERSION}. Export it with an older IR version, or upgrade onnx and onnxruntime."
        )
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise StageError(
                f"{called} has opset {opset.version}, but onnx {onnx.__version__} knows up to {newest}. "
                "Export it with an older opset, or upgrade onnx and onnxruntime."
            )


def folder_of_weights(model: ir.Model) -> Path | None:
    """The folder with the external data of all large initializers; None if not all of them are stored in one folder."""
    folders = set()
    for value in ir_conversion.large_initializers(model):
        if not isinstance(value.const_value, StoredTensor):
            return None
        folders.add(value.const_value.file.parent)
    return folders.pop() if len(folders) == 1 else None


def place_in_folder(tensor: ir.TensorProtocol) -> tuple[str, int]:
    """The name of a tensor's external data file, and the offset in bytes."""
    assert isinstance(tensor, StoredTensor)
    return tensor.file.name, tensor.offset


def _located(tensor: ir.ExternalTensor, model_path: Path) -> StoredTensor:
    """An external tensor by the absolute path of its file.

    Raises:
        StageError: the file is missing, lies outside the model's folder, or is too short.
    """
    location = str(tensor.location)
    place = f"{model_path.as_posix()} keeps the weight {tensor.name} in {location!r}"
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    if not location or ".." in parts or PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor:
        raise StageError(f"{place}, outside its own folder. Save the model with its data beside it.")
    file = model_path.parent / location
    if not file.is_file():
        raise StageError(f"{place}, but {file.as_posix()} is missing. Put that file beside the model.")
    size = file.stat().st_size
    offset, length = tensor.offset or 0, tensor.nbytes
    if offset < 0 or offset + length > size:
        with file.open("rb") as stream:
            instead = file_kind.instead(stream.read(file_kind.HEAD_BYTES))
        if instead:
            raise StageError(f"{file.as_posix()}, which holds weights of {model_path.as_posix()}, {instead}")
        raise StageError(
            f"{place} at bytes {offset} to {offset + length}, but {file.as_posix()} has {size}: "
            "it is truncated, or belongs to another model. Copy both files again."
        )
    return StoredTensor(file.resolve(), offset, length, tensor)


def _lift_initializers(model: ir.Model) -> None:
    """Move the initializers of subgraphs to the main graph, under unique names."""
    taken = {value.name for graph in model.graphs() for value in (*graph.inputs, *graph.initializers.values())}
    taken |= {value.name for node in model.graph.all_nodes() for value in node.outputs}
    for graph in list(model.graph.subgraphs()):
        for value in list(graph.initializers.values()):
            if value.is_graph_input() or value.is_graph_output() or value.name is None:
                continue
            del graph.initializers[value.name]
            number, stem = 0, value.name
            while value.name in taken:
                number += 1
                value.name = f"{stem}_{number}"
            taken.add(value.name)
            model.graph.register_initializer(value)


def _write_weights(model: ir.Model, data: Path) -> list[int]:
    """Write the large initializers of a model to `data`; returns their offsets."""
    offsets = []
    with data.open("wb") as file:
        for value in ir_conversion.large_initializers(model):
            assert value.const_value is not None
            file.write(bytes(-file.tell() % ALIGNMENT))
            offsets.append(file.tell())
            ir_conversion.raw_bytes(value.const_value).tofile(file)
    return offsets


def _serialize(model: onnx.ModelProto, path: Path) -> None:
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except (ValueError, EncodeError) as error:
        raise StageError(
            "The model exceeds protobuf's limit of 2 GB even without its initializers. "
            "Turn the tensors of its Constant nodes into initializers."
        ) from error
