"""What each method of quantization would do to a model: which nodes, and how large the file becomes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from stages.common.graph.passes import convert_opset
from stages.common.graph.walk import all_nodes, constant, input_of, name_of, number, only_reader
from stages.common.graph.weights import DEFAULT_OPERATORS, Weight, WeightedNode, weighted_nodes

OPSET = 13
"""What quantize converts older models to, where it can."""

BLOCK_SIZE = 32
"""Weights that share a scale in weight_only, by default."""

NODE_BYTES: Mapping[str, tuple[int, int]] = {"dynamic": (300, 18), "weight_only": (160, 2)}
"""What the new nodes of a quantized node take in the file: bytes, and how often its name or one made of it is there."""

PAIR_BYTES, WEIGHT_BYTES, BIAS_BYTES, FOLDED_BYTES = (206, 12), (162, 6), (134, 4), (-170, -4)
"""The same for static: a QuantizeLinear and a DequantizeLinear with scale and zero point, the DequantizeLinear of a
weight, that of a bias, and a BatchNormalization that goes into its Conv. The names are those of the values."""

UNSEEN = ("body", "decoder", "encoder", "init_decoder")
"""Subgraphs that calibration does not see into: of loops and of BeamSearch and its like."""

NAME_COPIES: Mapping[str, int] = {"dynamic": 18, "static": 18, "weight_only": 2}
"""How often the name of a quantized node, or one derived from it, is in the new nodes."""


@dataclass(frozen=True)
class Prediction:
    """What a method would do.

    Attributes:
        method: the value of `quantize.method`.
        nodes: that it would quantize.
        mb: expected size of the INT8 file in MB (1e6 bytes).
        share: of the weights' bytes that would become INT8, 0 to 1.
    """

    method: str
    nodes: tuple[WeightedNode, ...]
    mb: float
    share: float


def predict(model: ir.Model, file_bytes: int) -> tuple[Prediction, ...]:
    """Predict what each method does with its defaults (8-bit weights, a scale per channel).

    Args:
        model: the clean float model.
        file_bytes: of that model on disk.
    """
    listed = {value.name for value in model.graph.inputs if value.is_initializer()}
    transposed = {node.name for node in all_nodes(model) if node.op_type == "Gemm" and number(node, "transB", 0)}
    unknown = _without_kernel(model)
    nodes = weighted_nodes(model)
    usable = [
        _upright(node) if node.name in transposed else node
        for node in nodes
        if node.name not in unknown
        and all(weight.dtype == "float32" and weight.name not in listed for weight in node.weights)
    ]
    weights = {weight.name: weight.nbytes for node in nodes for weight in node.weights}
    old = too_old(model)
    by_name = {node.name or "": node for node in all_nodes(model)}
    return tuple(
        _predict(method, usable if method == "weight_only" or not old else [], weights, file_bytes, by_name)
        for method in DEFAULT_OPERATORS
    )


def too_old(model: ir.Model) -> bool:
    """Whether the opset is older than INT8 operators are, and cannot be converted."""
    try:
        convert_opset.apply(model, OPSET)
    except Exception:  # onnx's version converter raises what it likes
        return True
    return False


def _predict(
    method: str,
    nodes: Sequence[WeightedNode],
    weights: Mapping[str, int],
    file_bytes: int,
    by_name: Mapping[str, ir.Node],
) -> Prediction:
    taken: list[WeightedNode] = []
    int8: dict[str, int] = {}
    paired: set[ir.Value] = set()
    overhead = 0
    for node in nodes:
        sizes = {weight.name: _int8_bytes(method, node, weight) for weight in _taken(method, node)}
        if not sizes or (method == "weight_only" and sum(sizes.values()) >= sum(weights[name] for name in sizes)):
            continue
        taken.append(node)
        int8 |= sizes
        if method == "static":
            overhead += _static_bytes(by_name[node.name], paired)
        else:
            plain, copies = NODE_BYTES[method]
            overhead += plain + copies * len(node.name)
    replaced = sum(weights[name] for name in int8)
    size = file_bytes - replaced + sum(int8.values()) + overhead
    if size >= file_bytes:  # quantize keeps fp32 where the file would grow
        return Prediction(method, (), file_bytes / 1e6, 0.0)
    return Prediction(method, tuple(taken), size / 1e6, replaced / max(1, sum(weights.values())))


def _static_bytes(node: ir.Node, paired: set[ir.Value]) -> int:
    """What the nodes around a statically quantized node take; `paired` are the values that have their pair already."""
    size = 0
    parts = [(WEIGHT_BYTES, node.inputs[1])]
    bias, written = input_of(node, 2), node.outputs[0]
    while (reader := only_reader(written)) and reader.op_type in ("BatchNormalization", "Clip", "Relu"):
        if reader.op_type == "BatchNormalization" and (tensor := constant(reader.inputs[1])) is not None:
            size -= tensor.nbytes * (3 if bias is None else 4)
            bias = reader.inputs[2]
            parts.append((FOLDED_BYTES, reader.inputs[1]))
        written = reader.outputs[0]
    if node.op_type == "MatMul" and reader and reader.op_type == "Add":
        bias = next((value for value in reader.inputs if constant(value) is not None), None)
    if bias is not None:
        parts.append((BIAS_BYTES, bias))
    for value in (node.inputs[0], *([written] if node.op_type == "Conv" else [])):
        if value is not None and value not in paired:
            paired.add(value)
            parts.append((PAIR_BYTES, value))
    return size + sum(plain + copies * len(name_of(value)) for (plain, copies), value in parts)


def _without_kernel(model: ir.Model) -> frozenset[str]:
    """The names of the nodes with something that the INT8 kernel of their operator does not take."""
    return frozenset(
        node.name or ""
        for node in all_nodes(model)
        if node.op_type == "EmbedLayerNormalization"
        and (len(node.outputs) > 2 or input_of(node, 8) is not None or number(node, "mask_index_type", 0))
    )


def _upright(node: WeightedNode) -> WeightedNode:
    """A Gemm whose weight is stored [N, K], as if it were [K, N]."""
    weights = (
        dataclasses.replace(weight, shape=weight.shape[::-1]) if weight.index == 1 else weight
        for weight in node.weights
    )
    return dataclasses.replace(node, weights=tuple(weights))


def _taken(method: str, node: WeightedNode) -> tuple[Weight, ...]:
    """The weights of a node that the method replaces; none where it keeps the node float."""
    if node.op_type not in DEFAULT_OPERATORS[method] or any(0 in weight.shape for weight in node.weights):
        return ()
    if method == "static" and any(f".{name}" in node.graph for name in UNSEEN):
        return ()
    if node.op_type in ("MatMul", "Gemm"):
        right = tuple(weight for weight in node.weights if weight.index == 1)
        ranks = {len(weight.shape) for weight in right}
        return right if ranks and (ranks == {2} if method == "weight_only" else min(ranks) >= 2) else ()
    if node.op_type == "Gather":
        table = node.weights[0]
        packed = method != "weight_only" or len(table.shape) == 2
        return node.weights if len(table.shape) >= 2 and packed else ()
    if node.op_type == "LSTM":
        return node.weights if len(node.weights) == 2 else ()
    return node.weights


def _int8_bytes(method: str, node: WeightedNode, weight: Weight) -> int:
    elements = math.prod(weight.shape)
    if method == "weight_only":
        rows, width = (
            (weight.shape[0], weight.shape[1]) if node.op_type == "Gather" else (weight.shape[1], weight.shape[0])
        )
        blocks = rows * math.ceil(width / BLOCK_SIZE)
        return blocks * (BLOCK_SIZE + 4)
    if node.op_type == "Gather":
        return elements + 4 * (weight.shape[0] if len(weight.shape) == 2 else 1)
    if node.op_type == "LSTM":
        return elements + 5 * weight.shape[0] * weight.shape[1]
    if node.op_type == "Conv":
        return elements + 9 * weight.shape[0]
    if node.op_type == "EmbedLayerNormalization":
        return elements
    per_channel = 9 if method == "static" else 4
    return elements + per_channel * weight.shape[-1]
