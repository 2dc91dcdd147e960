"""Equal rewrites of the float graph after which ONNX Runtime finds more INT8 kernels in it."""

from collections.abc import Collection

from onnx import ModelProto, NodeProto, shape_inference

from stages.quantize.qdq import Flow


def join_bias(model: ModelProto, names: Collection[str]) -> None:
    """Make Gemm of the MatMul nodes of these names in the main graph that a constant is added to; in place.

    ONNX Runtime does so at load, for floats: DequantizeLinear, MatMul, Add then becomes a Gemm with a float bias,
    which has no INT8 kernel and is slower than the float model. It holds for activations of rank 2 and a bias of one
    value for each column. The Gemm keeps the name of the MatMul, and gives the output of the Add.
    """
    flow = Flow(model.graph)
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
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
