"""Equal rewrites of the float graph after which ONNX Runtime finds more INT8 kernels in it."""

from collections.abc import Collection, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper, shape_inference

from stages.common.model import model_file
from stages.quantize.graphs import Names, attribute, remove_unused_initializers
from stages.quantize.qdq import Flow


def join_bias(model: ModelProto, names: Collection[str]) -> None:
    """Make Gemm of the MatMul nodes of these names in the main graph that a constant is added to; in place.

    ONNX Runtime does so at load, for floats: DequantizeLinear, MatMul, Add then becomes a Gemm with a float bias,
    which has no INT8 kernel and is slower than the float model. It holds for activations of rank 2 and a bias of one
    value for each column. The Gemm keeps the name of the MatMul, and gives the output of the Add.
    """
    flow = Flow(model.graph)
    shapes = {name: list(tensor.dims) for name, tensor in _constants(model).items()}
    ranks = _ranks(model)
    joined = []
    for node in flow.nodes:
        if node.op_type != "MatMul" or node.name not in names or ranks.get(node.input[0]) != 2:
            continue
        add = flow.only_reader(node.output[0])
        weight = shapes.get(node.input[1], [])
        if add is None or flow.nodes[add].op_type != "Add" or len(weight) != 2:
            continue
        bias = next((name for name in flow.nodes[add].input if name != node.output[0]), "")
        if shapes.get(bias) in ([weight[1]], [1, weight[1]]):
            node.op_type = "Gemm"
            node.input.append(bias)
            node.output[0] = flow.nodes[add].output[0]
            joined.append(add)
    for at in sorted(joined, reverse=True):
        del model.graph.node[at]


def pool_last(model: ModelProto) -> None:
    """Make MaxPool of Relu out of Relu of MaxPool, in the main graph; in place.

    Both give the same. But a Relu right after a convolution becomes part of its INT8 kernel, and one behind a pool
    would go through float.
    """
    flow = Flow(model.graph)
    for at, node in enumerate(flow.nodes):
        reader = flow.only_reader(node.output[0])
        if node.op_type != "MaxPool" or len(node.output) > 1 or reader is None:
            continue
        if flow.nodes[reader].op_type == "Relu" and flow.only_reader(node.input[0]) == at:
            relu, pool = NodeProto(), NodeProto()
            relu.CopyFrom(flow.nodes[reader])
            pool.CopyFrom(node)
            relu.input[0], pool.output[0] = node.input[0], relu.output[0]
            relu.output[0] = pool.input[0] = node.output[0]
            model.graph.node[at].CopyFrom(relu)
            model.graph.node[reader].CopyFrom(pool)


def fold_scales(model: ModelProto, names: Collection[str]) -> None:
    """Put what scales and shifts the channels of a convolution into its weight and bias, in the main graph; in place.

    BatchNormalization, and Mul and Add with a constant for each channel, right after a Conv of `names`: as floats ONNX
    Runtime folds them at load, but not behind the 8-bit output of an INT8 convolution, where each is a way to float
    and back. BatchNormalization is y = scale (x - mean) / sqrt(variance + epsilon) + shift.
    """
    fresh = Names(model)
    flow = Flow(model.graph)
    constants = _constants(model)
    folded = []
    replaced: set[str] = set()
    for node in flow.nodes:
        weight = constants.get(node.input[1]) if node.op_type == "Conv" and node.name in names else None
        bias = constants.get(node.input[2]) if len(node.input) > 2 else None
        if weight is None or weight.data_type != TensorProto.FLOAT or (bias is None and "".join(node.input[2:])):
            continue
        filters = weight.dims[0]
        factor = np.ones(filters, np.float32)
        shift = model_file.array(bias).reshape(-1) if bias is not None else np.zeros(filters, np.float32)
        followers = []
        while (reader := flow.only_reader(node.output[0])) is not None:
            found = _scale_and_shift(flow.nodes[reader], node.output[0], constants, len(weight.dims), filters)
            if found is None:
                break
            factor, shift = factor * found[0], shift * found[0] + found[1]
            node.output[0] = flow.nodes[reader].output[0]
            followers.append(reader)
        if followers:
            values = model_file.array(weight) * factor.reshape(-1, *(1,) * (len(weight.dims) - 1))
            stored = [(f"{weight.name}_scaled", values), (f"{weight.name}_shift", shift)]
            replaced.update(node.input[1:], *(flow.nodes[at].input for at in followers))
            del node.input[1:]
            for stem, array in stored:
                node.input.append(fresh.fresh(stem))
                model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), node.input[-1]))
            folded += followers
    for at in sorted(folded, reverse=True):
        del model.graph.node[at]
    remove_unused_initializers(model, replaced)


def _scale_and_shift(
    node: NodeProto, value: str, constants: Mapping[str, TensorProto], rank: int, channels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """What `node` multiplies each channel of `value` by and then adds, shape [channels] each; None if it does not."""
    others = [constants[name] for name in node.input if name in constants and name != value]
    if len(others) != len(node.input) - 1 or any(each.data_type != TensorProto.FLOAT for each in others):
        return None
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if node.op_type == "BatchNormalization":
        if node.input[0] != value or len(node.output) > 1 or attribute(node, "training_mode", 0):
            return None
        scale, shift, mean, variance = (model_file.array(each).astype(np.float64) for each in others)
        factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        return factor, shift - mean * factor
    if node.op_type not in ("Add", "Mul"):
        return None
    values, per_channel = model_file.array(others[0]), (channels, *(1,) * (rank - 2))
    scalar = values.size == 1 and values.ndim <= rank
    if not scalar and values.shape not in (per_channel, (1, *per_channel)):
        return None
    spread = np.broadcast_to(values.reshape(-1), channels)
    return (spread, zeros) if node.op_type == "Mul" else (ones, spread)


def _constants(model: ModelProto) -> dict[str, TensorProto]:
    """The initializers of the main graph that no caller may override."""
    inputs = {each.name for each in model.graph.input}
    return {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in inputs}


def _ranks(model: ModelProto) -> dict[str, int]:
    """How many dimensions the tensors of the main graph have, where that can be told."""
    try:
        graph = shape_inference.infer_shapes(model).graph
    except Exception:  # onnx raises what it likes; without shapes nothing is joined
        graph = model.graph
    known = (each for listed in (graph.input, graph.value_info, graph.output) for each in listed)
    return {
        each.name: len(each.type.tensor_type.shape.dim) for each in known if each.type.tensor_type.HasField("shape")
    }
