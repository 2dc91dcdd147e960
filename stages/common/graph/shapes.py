"""Shapes inferred from those of inputs and weights alone; other shapes in the file may be wrong."""

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, shape_inference

from stages.common.model import ir_conversion

Dims = list[int | None]
"""A shape, or part of one; None for a size that varies between runs."""

_SAME_SHAPE = frozenset({"Imputer", "Normalizer", "Scaler"})
"""Operators of ai.onnx.ml that keep the shape of their input, which onnx cannot infer."""

_INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)


def inferred(model: ir.Model) -> dict[ir.Value, Dims]:
    """The shapes of the values of the main graph that can be inferred."""
    proto = ir_conversion.to_proto(model, lambda _: ("weights", 0))
    proto.graph.ClearField("value_info")
    for output in proto.graph.output:
        output.ClearField("type")
    for node in proto.graph.node:
        if node.op_type in _SAME_SHAPE:
            node.op_type, node.domain = "Identity", ""
            node.ClearField("attribute")
    try:
        proto = shape_inference.infer_shapes(proto)
    except Exception:  # onnx raises anything; then only the shapes of weights are known
        proto = ModelProto()
    known: dict[str, Dims] = {}
    for listed in (proto.graph.input, proto.graph.value_info, proto.graph.output):
        for info in listed:
            if info.type.tensor_type.HasField("shape"):
                dims = info.type.tensor_type.shape.dim
                known[info.name] = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    shapes: dict[ir.Value, Dims] = {}
    for value in _values(model.graph):
        tensor = value.const_value
        if tensor is not None:
            shapes[value] = list(tensor.shape.numpy())
        elif value.name in known:
            shapes[value] = known[value.name]
    return shapes


def fixed_numbers(model: ir.Model) -> dict[ir.Value, np.ndarray]:
    """The constant outputs of Shape nodes in the main graph, and of Gather and Slice nodes after them: int64 arrays.

    Exporters write the width of a layer as `Gather(Shape(x), 2)` and slice weights by it, as torch's MultiheadAttention
    does if queries and keys are different inputs. If that width is fixed, the weight is a constant.
    """
    if not any(node.op_type == "Shape" for node in model.graph):
        return {}
    shapes = inferred(model)
    partly: dict[ir.Value, Dims] = {}
    fixed: dict[ir.Value, np.ndarray] = {}
    for node in model.graph:
        dims = _dims(node, shapes, partly)
        if dims is None:
            continue
        output = node.outputs[0]
        if isinstance(dims, list):
            partly[output] = dims
        if isinstance(dims, int) or None not in dims:
            fixed[output] = np.array(dims, np.int64)
    return fixed


def _values(graph: ir.Graph) -> list[ir.Value]:
    outputs = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *outputs]


def _dims(node: ir.Node, shapes: dict[ir.Value, Dims], partly: dict[ir.Value, Dims]) -> Dims | int | None:
    """The sizes that a node gives, or a single one; None if that is unknown or nothing in it is fixed."""
    source = node.inputs[0] if node.inputs else None
    if source is None:
        return None
    if node.op_type == "Shape" and source in shapes:
        bounds = [node.attributes[name].as_int() if name in node.attributes else None for name in ("start", "end")]
        return shapes[source][slice(*bounds)]
    if node.op_type not in ("Gather", "Slice") or source not in partly:
        return None
    dims = partly[source]
    arguments = [ir.convenience.get_const_tensor(value) if value is not None else None for value in node.inputs[1:]]
    arrays = [tensor.numpy() for tensor in arguments if tensor is not None and tensor.dtype in _INTEGERS]
    if len(arrays) != len(arguments):
        return None
    places = [np.atleast_1d(array) for array in arrays]
    if node.op_type == "Slice":  # starts, ends, axes (there is one only), steps
        return dims[slice(int(places[0][0]), int(places[1][0]), int(places[3][0]) if len(places) > 3 else 1)]
    picked = [dims[at] if -len(dims) <= at < len(dims) else None for at in places[0].tolist()]
    return picked[0] if arrays[0].ndim == 0 else picked
