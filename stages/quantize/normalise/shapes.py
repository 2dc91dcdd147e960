"""Numbers that a graph takes from the shapes of its tensors, and that are the same in every run.

Exporters write the width of a layer as `Gather(Shape(x), 2)`, and cut weights by it: torch's MultiheadAttention does
where queries and keys are different inputs. Where that width is fixed, the number is a constant, and so is the weight.
"""

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from stages.common.model import model_file

_INLINE_BYTES = 1024
"""Larger constants are no shapes: shape inference need not see their values."""

Dims = list[int | None]
"""A shape, or a part of one; None for a size that differs from run to run."""


def fixed_numbers(model: ModelProto) -> dict[str, TensorProto]:
    """The values in the main graph that Shape nodes, and Gather and Slice behind them, give in every run alike."""
    graph = model.graph
    if not any(node.op_type == "Shape" for node in graph.node):
        return {}
    shapes = _inferred(model)
    constants = _small_constants(graph)
    partly: dict[str, Dims] = {}
    fixed: dict[str, TensorProto] = {}
    for node in graph.node:
        dims = _dims(node, shapes, partly, constants)
        if dims is None:
            continue
        output = node.output[0]
        if isinstance(dims, list):
            partly[output] = dims
        if isinstance(dims, int) or None not in dims:
            fixed[output] = numpy_helper.from_array(np.array(dims, np.int64), output)
    return fixed


def _dims(
    node: NodeProto, shapes: Mapping[str, Dims], partly: Mapping[str, Dims], constants: Mapping[str, np.ndarray]
) -> Dims | int | None:
    """What a node gives: sizes, a single one, or None where that cannot be told or nothing in it is fixed."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        bounds = {each.name: each.i for each in node.attribute}
        return shapes[node.input[0]][slice(bounds.get("start"), bounds.get("end"))]
    if node.op_type not in ("Gather", "Slice") or node.input[0] not in partly:
        return None
    dims = partly[node.input[0]]
    arguments = [constants.get(name) for name in node.input[1:]]
    if any(each is None for each in arguments):
        return None
    places = [np.atleast_1d(each) for each in arguments if each is not None]
    if node.op_type == "Slice":  # starts, ends, axes (there is one only), steps
        return dims[slice(int(places[0][0]), int(places[1][0]), int(places[3][0]) if len(places) > 3 else 1)]
    picked = [dims[at] if -len(dims) <= at < len(dims) else None for at in places[0].tolist()]
    scalar = arguments[0] is not None and arguments[0].ndim == 0
    return picked[0] if scalar else picked


def _inferred(model: ModelProto) -> dict[str, Dims]:
    """The shapes that follow from those of the inputs and weights; what exporters wrote beside them may be wrong."""
    bare = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    bare.graph.name = "shapes"
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(helper.make_empty_tensor_value_info(each.name) for each in model.graph.output)
    for tensor in model.graph.initializer:
        if model_file.tensor_bytes(tensor) <= _INLINE_BYTES:
            bare.graph.initializer.append(tensor)
        else:
            bare.graph.initializer.append(
                TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, data_location=1)
            )
    try:
        graph = shape_inference.infer_shapes(bare).graph
    except Exception:  # onnx raises what it likes; without shapes nothing is fixed
        return {}
    shapes: dict[str, Dims] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [
                each.dim_value if each.HasField("dim_value") else None for each in value.type.tensor_type.shape.dim
            ]
    return shapes


def _small_constants(graph: GraphProto) -> dict[str, np.ndarray]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    return {
        name: model_file.array(each)
        for name, each in tensors.items()
        if model_file.tensor_bytes(each) <= _INLINE_BYTES and each.data_type in (TensorProto.INT32, TensorProto.INT64)
    }
