"""Small networks, quantized by a method."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from stages.common.base.params import Quantize
from stages.common.graph.weights import weighted_nodes
from stages.common.model import ir_conversion, sessions
from stages.common.model.sessions import Feed
from stages.quantize import methods
from stages.quantize.outcome import NodeOutcome
from tests.onnx_models import ir_model, opened

Shape = Sequence[int | str]


def net(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, np.ndarray],
    opset: int = 17,
) -> ModelProto:
    """A model of float inputs and outputs."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op_type: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    """A node named after its output; inputs are separated by spaces, `-` is an omitted one."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op_type, names, [output], name=f"{op_type}_{output}", **attributes)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal values, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mlp(widths: Sequence[int] = (12, 48, 33, 7), seed: int = 0, opset: int = 17) -> ModelProto:
    """MatMul, Add, Relu for each layer but the last, which has no Relu."""
    nodes, constants, last = [], {}, "x"
    for layer, (rows, columns) in enumerate(pairwise(widths)):
        constants[f"W{layer}"] = normal(rows, columns, seed=seed + layer) / np.float32(rows**0.5)
        constants[f"b{layer}"] = normal(columns, seed=seed + 99 + layer) / 4
        nodes.append(node("MatMul", f"{last} W{layer}", f"p{layer}"))
        nodes.append(node("Add", f"p{layer} b{layer}", f"s{layer}"))
        last = f"s{layer}"
        if layer < len(widths) - 2:
            nodes.append(node("Relu", last, f"h{layer}"))
            last = f"h{layer}"
    nodes.append(node("Identity", last, "y"))
    return net(nodes, {"x": ["N", widths[0]]}, {"y": ["N", widths[-1]]}, constants, opset)


def conv_net(channels: int = 8, seed: int = 0, opset: int = 17, pool_first: bool = True) -> ModelProto:
    """Two convolutions, a residual one, pools, and a Gemm: images of 1 x 16 x 16."""
    relu = node("Relu", "a0" if pool_first else "c0", "h0" if pool_first else "a0")
    ends = ("c0", "a0") if pool_first else ("a0", "h0")
    pool = node("MaxPool", *ends, kernel_shape=[2, 2], strides=[2, 2])
    nodes = [
        node("Conv", "x W0 b0", "c0", pads=[1, 1, 1, 1]),
        *((pool, relu) if pool_first else (relu, pool)),
        node("Conv", "h0 W1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "h1"),
        node("Conv", "h1 W2", "c2", pads=[1, 1, 1, 1]),
        node("Add", "c2 h0", "r"),
        node("Relu", "r", "h2"),
        node("GlobalAveragePool", "h2", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f W3 b3", "y", transB=1),
    ]
    c = channels
    constants = {
        "W0": normal(c, 1, 3, 3, seed=seed) / 3, "b0": normal(c, seed=seed + 1),
        "W1": normal(c, c, 3, 3, seed=seed + 2) / np.float32(9 * c) ** np.float32(0.5), "b1": normal(c, seed=seed + 3),
        "W2": normal(c, c, 3, 3, seed=seed + 4) / np.float32(9 * c) ** np.float32(0.5),
        "W3": normal(10, c, seed=seed + 5), "b3": normal(10, seed=seed + 6),
    }  # fmt: skip
    return net(nodes, {"x": ["N", 1, 16, 16]}, {"y": ["N", 10]}, constants, opset)


def feeds(model: ModelProto, count: int = 32, batch: int = 1, seed: int = 7) -> list[Feed]:
    """Normal values for every input; dimensions without a fixed size are the batch."""
    rng = np.random.default_rng(seed)

    def values(info: onnx.ValueInfoProto) -> np.ndarray:
        shape = [dim.dim_value or batch for dim in info.type.tensor_type.shape.dim]
        return rng.normal(size=shape).astype(np.float32)

    constants = {tensor.name for tensor in model.graph.initializer}
    return [{info.name: values(info) for info in model.graph.input if info.name not in constants} for _ in range(count)]


def quantized(
    model: ModelProto, given: Sequence[Feed] | None = None, **params: object
) -> tuple[ModelProto, dict[str, NodeOutcome]]:
    """The model with every supported node quantized by the method in `params`, and the outcomes."""
    section = Quantize(**params)  # type: ignore[arg-type]
    source = ir_model(model)
    known = methods.op_types(section.method)
    assigned = [methods.Assignment(node, section) for node in weighted_nodes(source) if node.op_type in known]

    def calibration() -> Iterator[Feed]:
        return iter(feeds(model) if given is None else given)

    result, outcomes = methods.quantize(source, assigned, calibration)
    return ir_conversion.to_proto(result), outcomes


def sqnr_db(model: ModelProto, other: ModelProto, given: Sequence[Feed] | None = None) -> float:
    """Signal over noise of the first output, in dB, over some feeds."""
    sessions_ = [opened(candidate) for candidate in (model, other)]
    signal = noise = 0.0
    for feed in feeds(model, seed=8) if given is None else given:
        a, b = (sessions.run(session, feed, name="net")[0].astype(np.float64) for session in sessions_)
        signal, noise = signal + np.square(a).sum(), noise + np.square(a - b).sum()
    return float(10 * np.log10(signal / max(noise, 1e-30)))


def kernels(model: ModelProto) -> Counter[str]:
    """The operators of a model that ONNX Runtime has optimized: those that really run."""
    with TemporaryDirectory() as folder:
        options = sessions.session_options(1)
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        sessions.open_session(model.SerializeToString(), options=options)
        optimized = onnx.load(options.optimized_model_filepath)
    return Counter(node.op_type for node in optimized.graph.node)
