"""ONNX protobuf to onnx-ir and back, with what onnx-ir cannot hold, keeping large weights out of the protobuf."""

import base64
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    SparseTensorProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from stages.common.base.errors import StageError

INLINE_BYTES = 1024
"""Smaller tensors stay in the protobuf: shape inference reads shapes and axes there."""

_MAP_TYPE = "onnx_type_with_map"
"""The metadata key for the type of a graph output that is a map, which onnx-ir cannot hold."""

Place = Callable[[ir.TensorProtocol], tuple[str, int]]
"""The location and offset in bytes to write into the protobuf for a large weight."""


def from_proto(proto: ModelProto) -> ir.Model:
    """Convert a model to onnx-ir, nodes in topological order. May change the protobuf: do not use it afterwards.

    Sparse tensors become dense, as ONNX Runtime makes them at load. If Constant nodes give the same value twice, the
    last one counts, as in ONNX Runtime. Types of outputs that hold maps are kept as metadata.

    Raises:
        StageError: the graph is not valid ONNX.
    """
    for graph in _graphs(proto.graph):
        _densify(graph)
        _drop_overridden_constants(graph)
    versions: dict[str, int] = {}
    for opset in proto.opset_import:
        versions[opset.domain] = max(versions.get(opset.domain, 0), opset.version)
    proto.ClearField("opset_import")
    proto.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())
    maps = {value.name: value.type.SerializeToString() for value in proto.graph.output if _holds_map(value.type)}
    for graph in _graphs(proto.graph):
        _keep(graph, [info for info in graph.value_info if not _holds_map(info.type)])
        for value in graph.output:
            if _holds_map(value.type):
                value.ClearField("type")
    try:
        model = ir.from_proto(proto)
        model.graph.sort()
    except (ir.serde.SerdeError, ValueError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise StageError(
            f"The graph is not valid ONNX: {' '.join(str(cause).split())[:300].rstrip('.')}. Export it again."
        ) from error
    for output in model.graph.outputs:
        if output.name in maps:
            output.metadata_props[_MAP_TYPE] = base64.b64encode(maps[output.name]).decode()
    return model


def has_external_data(proto: ModelProto) -> bool:
    """Whether some weights are in other files."""
    tensors = [tensor for graph in _graphs(proto.graph) for tensor in graph.initializer]
    return any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors)


def to_proto(model: ir.Model, place: Place | None = None) -> ModelProto:
    """The model, which is not changed, as protobuf; `place` puts initializers of `INLINE_BYTES` or more elsewhere."""
    if place is not None:
        model = model.clone()
        for value in large_initializers(model):
            tensor = value.const_value
            assert tensor is not None and value.name is not None
            location, offset = place(tensor)
            value.const_value = ir.ExternalTensor(
                location, offset, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape), name=value.name
            )
    proto: ModelProto = ir.to_proto(model)
    for graph in _graphs(proto.graph):
        weights = {tensor.name for tensor in graph.initializer}  # these have a type and a shape already
        _keep(graph, [info for info in graph.value_info if info.name not in weights])
        for node in graph.node:  # onnx-ir names the tensor of a Constant on first access
            for attribute in node.attribute if node.op_type == "Constant" else ():
                attribute.t.ClearField("name")
    for output in proto.graph.output:
        for entry in list(output.metadata_props):
            if entry.key == _MAP_TYPE:
                output.type.CopyFrom(TypeProto.FromString(base64.b64decode(entry.value)))
                output.metadata_props.remove(entry)
    return proto


def transformed(model: ir.Model, transform: Callable[[ModelProto], ModelProto]) -> ir.Model:
    """Apply a function on protobufs, which sees only shape and type of large initializers."""
    tensors: dict[str, ir.TensorProtocol] = {}

    def place(tensor: ir.TensorProtocol) -> tuple[str, int]:
        location = f"#{len(tensors)}"
        tensors[location] = tensor
        return location, 0

    result = from_proto(transform(to_proto(model, place)))
    for graph in result.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = tensors[str(value.const_value.location)]
    return result


def large_initializers(model: ir.Model) -> Iterator[ir.Value]:
    """The initializers that `to_proto` can keep out of the protobuf, in the order of the graphs."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes >= INLINE_BYTES:
                yield value


def raw_bytes(tensor: ir.TensorProtocol) -> np.ndarray:
    """The bytes of a tensor as ONNX stores them, uint8, one-dimensional: a view if possible."""
    if tensor.dtype.bitwidth < 8:
        return np.frombuffer(tensor.tobytes(), np.uint8)
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)


def _keep(graph: GraphProto, known: list[ValueInfoProto]) -> None:
    graph.ClearField("value_info")
    graph.value_info.extend(known)


def _holds_map(kind: TypeProto) -> bool:
    if kind.HasField("sequence_type"):
        return _holds_map(kind.sequence_type.elem_type)
    return bool(kind.HasField("map_type"))


def _densify(graph: GraphProto) -> None:
    graph.initializer.extend(_dense(sparse) for sparse in graph.sparse_initializer)
    graph.ClearField("sparse_initializer")
    for attribute in (attribute for node in graph.node if node.op_type == "Constant" for attribute in node.attribute):
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            attribute.CopyFrom(helper.make_attribute("value", _dense(attribute.sparse_tensor)))


def _dense(sparse: SparseTensorProto) -> TensorProto:
    """Indices are [values] into the flat tensor, or [values, rank]; all other values are zero."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    where = np.unravel_index(indices, dense.shape) if indices.ndim == 1 else tuple(indices.T)
    dense[where] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def _drop_overridden_constants(graph: GraphProto) -> None:
    last = {node.output[0]: at for at, node in enumerate(graph.node) if node.op_type == "Constant"}
    dropped = [at for at, node in enumerate(graph.node) if node.op_type == "Constant" and last[node.output[0]] != at]
    for at in reversed(dropped):
        del graph.node[at]
