"""Sparse weights made dense, as ONNX Runtime makes them at load: no INT8 kernel has a sparse form."""

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

from stages.common.model import model_file
from stages.quantize.graphs import copy, scopes


def densify(model: ModelProto) -> tuple[ModelProto, bool]:
    """Make dense tensors of sparse initializers and of the sparse values of Constant nodes, in every graph."""
    graphs = [scope.graph for scope in scopes(model)]
    if not any(graph.sparse_initializer or any(_sparse_values(graph)) for graph in graphs):
        return model, False
    dense = copy(model)
    for scope in scopes(dense):
        scope.graph.initializer.extend(_dense(each) for each in scope.graph.sparse_initializer)
        scope.graph.ClearField("sparse_initializer")
        for attribute in _sparse_values(scope.graph):
            attribute.CopyFrom(helper.make_attribute("value", _dense(attribute.sparse_tensor)))
    return dense, True


def _sparse_values(graph: GraphProto) -> Iterator[AttributeProto]:
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (each for each in node.attribute if each.type == AttributeProto.SPARSE_TENSOR)


def _dense(sparse: SparseTensorProto) -> TensorProto:
    """The indices are [values] into the flat tensor, or [values, rank]; whatever is not named is zero."""
    values, indices = model_file.array(sparse.values), model_file.array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    where = np.unravel_index(indices, dense.shape) if indices.ndim == 1 else tuple(indices.T)
    dense[where] = values
    return numpy_helper.from_array(dense, sparse.values.name)
