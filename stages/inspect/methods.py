"""What each method would do to a model: the nodes it quantizes, and the size of the file."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from stages.common.graph.passes import convert_opset, widen_float16
from stages.common.graph.shapes import inferred
from stages.common.graph.walk import all_nodes, constant, input_of, name_of, number, only_reader
from stages.common.graph.weights import CHANNEL_AXES, DEFAULT_OPERATORS, Weight, WeightedNode, weighted_nodes
from stages.common.model import model_file

OPSET = 13
"""The opset to which quantize converts older models if it can."""

BLOCK_SIZE = 32
"""Weights per scale in weight_only, by default."""

NODE_BYTES: Mapping[str, tuple[int, int]] = {
    "dynamic": (300, 18),
    "weight_only": (160, 2),
    "stored": (200, 8),
}
"""What each quantized node adds to the file, fitted to real models: bytes, and how often it repeats the node's name."""

PAIR, WEIGHT, BIAS, FOLDED = (206, 12), (162, 6), (134, 4), (-170, -4)
"""The same for static, by place: the pair of nodes at an activation; the node at a weight; the node at a bias; and a
BatchNormalization, which disappears into its Conv."""

ADD, ZEROS = 60, 35
"""Bytes of an Add, which disappears when it becomes the bias of a MatMul, and of the header of zero points."""

UNSEEN = ("body", "decoder", "encoder", "init_decoder")
"""Names of the subgraphs that calibration does not reach: those of loops, BeamSearch and the like."""


@dataclass(frozen=True)
class Prediction:
    """What a method would do.

    Attributes:
        method: the value of `quantize.method`.
        nodes: the nodes that it would quantize.
        mb: expected size of the INT8 file in MB (1e6 bytes).
        share: the share of the weights, in bytes, that it would quantize, 0 to 1.
    """

    method: str
    nodes: tuple[WeightedNode, ...]
    mb: float
    share: float


def predict(model: ir.Model, file_bytes: int) -> tuple[Prediction, ...]:
    """Predict what each method does to a clean float model of `file_bytes` with its defaults (8 bits, per channel)."""
    wide = widen_float16.apply(model.clone()).model  # as quantize does, so that what stays float takes twice the space
    float_bytes = file_bytes + model_file.weight_bytes(wide) - model_file.weight_bytes(model)
    model = wide
    listed = {value.name for value in model.graph.inputs if value.is_initializer()}
    transposed = {node.name for node in all_nodes(model) if node.op_type == "Gemm" and number(node, "transB", 0)}
    unknown = {node.name for node in all_nodes(model) if not _has_kernel(node)}
    nodes = weighted_nodes(model)
    usable = [
        _upright(node) if node.name in transposed else node
        for node in nodes
        if node.name not in unknown
        and all(weight.dtype == "float32" and weight.name not in listed for weight in node.weights)
    ]
    weights = {weight.name: weight.nbytes for node in nodes for weight in node.weights}
    old = too_old(model)
    predictions = (
        _predict(method, model, usable if method in ("weight_only", "stored") or not old else [], weights, float_bytes)
        for method in DEFAULT_OPERATORS
    )
    return tuple(_kept_if_larger(prediction, file_bytes) for prediction in predictions)


def _kept_if_larger(prediction: Prediction, file_bytes: int) -> Prediction:
    """Quantize keeps fp32 if the file would grow."""
    mb = file_bytes / 1e6
    return prediction if prediction.mb < mb else Prediction(prediction.method, (), mb, 0.0)


def too_old(model: ir.Model) -> bool:
    """Whether the opset is too old for INT8 operators and cannot be converted."""
    try:
        convert_opset.apply(model, OPSET)
    except Exception:  # onnx's version converter raises anything
        return True
    return False


def _predict(
    method: str, model: ir.Model, nodes: Sequence[WeightedNode], weights: Mapping[str, int], float_bytes: int
) -> Prediction:
    """What one method does with its defaults: the nodes that it takes, and the size of the file."""
    taken: list[WeightedNode] = []
    int8: dict[str, int] = {}
    overhead = 0
    for node in nodes:
        replaceable = _taken(method, node)
        sizes = {weight.name: _int8_bytes(method, node, weight) for weight in replaceable}
        grows = method == "weight_only" and sum(sizes.values()) >= sum(weights[name] for name in sizes)
        if not sizes or grows or (method == "stored" and _mostly_scales(node)):
            continue
        taken.append(node)
        int8 |= sizes
        if method in NODE_BYTES:
            plain, copies = NODE_BYTES[method]
            overhead += plain + copies * len(node.name)
    if method == "static":
        overhead = _added_bytes(model, taken)
    replaced = sum(weights[name] for name in int8)
    size = float_bytes - replaced + sum(int8.values()) + overhead
    return Prediction(method, tuple(taken), size / 1e6, replaced / max(1, sum(weights.values())))


def _mostly_scales(node: WeightedNode) -> bool:
    """Whether the scales of a stored node would take as much as 8 bits save."""
    scales = sum(_scales(node, weight) for weight in node.weights)
    return 3 * sum(math.prod(weight.shape) for weight in node.weights) < 4 * scales


def _scales(node: WeightedNode, weight: Weight) -> int:
    """The number of scales of a stored weight; of tables, as if every row had one."""
    rank = len(weight.shape)
    if node.op_type == "Gather":
        return weight.shape[0] if rank == 2 else math.prod(weight.shape) // weight.shape[-2]
    left = node.op_type in ("Gemm", "MatMul") and weight.index == 0
    axes = (-2,) if left else CHANNEL_AXES[node.op_type]
    return math.prod(weight.shape[axis] for axis in axes) if rank > 1 else 1


def _has_kernel(node: ir.Node) -> bool:
    """Whether the INT8 kernel of the operator, if it has one, supports the features of the node."""
    plain = len(node.outputs) <= 2 and input_of(node, 8) is None and not number(node, "mask_index_type", 0)
    return node.op_type != "EmbedLayerNormalization" or plain


def _upright(node: WeightedNode) -> WeightedNode:
    """A Gemm whose weight is stored [N, K], as if it were [K, N]."""
    weights = (
        dataclasses.replace(weight, shape=weight.shape[::-1]) if weight.index == 1 else weight
        for weight in node.weights
    )
    return dataclasses.replace(node, weights=tuple(weights))


def _taken(method: str, node: WeightedNode) -> tuple[Weight, ...]:
    """The weights of a node that the method quantizes; empty if it keeps the node float."""
    if node.op_type not in DEFAULT_OPERATORS[method] or any(0 in weight.shape for weight in node.weights):
        return ()
    if method == "static" and any(f".{name}" in node.graph for name in UNSEEN):
        return ()
    if node.op_type in ("MatMul", "Gemm") and method != "stored":
        right = tuple(weight for weight in node.weights if weight.index == 1)
        ranks = {len(weight.shape) for weight in right}
        return right if ranks and (ranks == {2} if method == "weight_only" else min(ranks) >= 2) else ()
    if node.op_type == "Gather":
        table = node.weights[0]
        packed = method != "weight_only" or len(table.shape) == 2
        return node.weights if len(table.shape) >= 2 and packed else ()
    if node.op_type == "LSTM" and method != "stored":
        return node.weights if len(node.weights) == 2 else ()
    return node.weights


def _int8_bytes(method: str, node: WeightedNode, weight: Weight) -> int:
    """Bytes of a quantized weight with its scales and zero points."""
    elements = math.prod(weight.shape)
    if method == "stored":
        return elements + 4 * _scales(node, weight)
    if method == "weight_only":
        rows, width = weight.shape if node.op_type == "Gather" else weight.shape[::-1]
        blocks = rows * math.ceil(width / BLOCK_SIZE)
        return 4 * blocks + (elements if node.op_type == "Gather" else BLOCK_SIZE * blocks)  # lookups have no padding
    if node.op_type == "Gather":
        return elements + 4 * (weight.shape[0] if len(weight.shape) == 2 else 1)
    if node.op_type == "LSTM":
        return elements + 5 * weight.shape[0] * weight.shape[1]
    if method == "static" or node.op_type == "EmbedLayerNormalization":
        return elements
    return elements + 4 * weight.shape[-1]


def _added_bytes(model: ir.Model, nodes: Sequence[WeightedNode]) -> int:
    """How much static quantization of these nodes (Conv, Gemm and MatMul with one weight each) adds to the file."""
    by_name = {node.name: node for node in all_nodes(model)}
    rank = {value: len(shape) for value, shape in inferred(model).items()} if nodes else {}
    paired: set[ir.Value | None] = set()
    zeros: set[int] = set()
    total = 0
    for weighted in nodes:
        node, (weight,) = by_name[weighted.name], weighted.weights[-1:]
        channels = weight.shape[0 if node.op_type == "Conv" else -1]
        total += 4 * channels + (0 if channels in zeros else channels) - (ZEROS if channels in zeros else 0)
        zeros.add(channels)
        total += _around(node, channels, rank, paired)
    return total


def _around(node: ir.Node, channels: int, rank: Mapping[ir.Value, int], paired: set[ir.Value | None]) -> int:
    """The bytes added at a node's input, weight, bias and, for Conv, output, except at activations in `paired`."""
    size = 0
    parts = [(WEIGHT, node.inputs[1])]
    bias, written = input_of(node, 2), node.outputs[0]
    while (reader := only_reader(written)) and reader.op_type in ("BatchNormalization", "Clip", "Relu"):
        if reader.op_type == "BatchNormalization":
            size -= 4 * channels * (3 if bias is None else 4)
            bias = reader.inputs[2]
            parts.append((FOLDED, reader.inputs[1]))
        written = reader.outputs[0]
    if node.op_type == "MatMul" and reader and reader.op_type == "Add" and rank.get(node.inputs[0]) == 2:
        bias = next((value for value in reader.inputs if constant(value) is not None), None)
        size -= 0 if bias is None else ADD
    if bias is not None:
        size += 4 * channels  # a scale for each
        parts.append((BIAS, bias))
    activations = {node.inputs[0], written} if node.op_type == "Conv" else {node.inputs[0]}
    parts += [(PAIR, value) for value in activations - paired]
    paired |= activations
    return size + sum(plain + copies * len(name_of(value)) for (plain, copies), value in parts)
