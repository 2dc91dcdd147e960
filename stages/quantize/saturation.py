"""Which weights can saturate on x86 CPUs without VNNI.

There ONNX Runtime multiplies unsigned activations and signed weights with VPMADDUBSW, which adds two neighbouring
products in 16 bits. With activations up to 255, a pair of weights whose sum is outside -128 to 128 can overflow: the
sum saturates, and the same file gives different answers (ONNX Runtime issues 5849 and 6004). Neighbours are weights 2k
and 2k + 1 along the summed axis, as the kernels pack it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from stages.common.graph.walk import constant, number
from stages.quantize.portable import LARGEST_SUM

SHARE_THAT_MATTERS = 0.001
"""From this share of pairs on, the stage warns."""


@dataclass(frozen=True)
class Pairs:
    """How many pairs of neighbouring weights there are, and how many of them can overflow."""

    counted: int = 0
    at_risk: int = 0

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(self.counted + other.counted, self.at_risk + other.at_risk)

    @property
    def share(self) -> float:
        return self.at_risk / self.counted if self.counted else 0.0


def pairs(weight: np.ndarray) -> Pairs:
    """The pairs of a weight, int8 [..., K, N], with K in the order of summation."""
    even = weight[..., 0 : weight.shape[-2] - 1 : 2, :].astype(np.int16)
    sums = even + weight[..., 1::2, :]
    return Pairs(sums.size, int(np.count_nonzero(np.abs(sums) > LARGEST_SUM)))


def of_model(model: ir.Model) -> dict[str, Pairs]:
    """The pairs, by name, of each node that multiplies 8-bit activations by a signed constant weight.

    Signed activations count too: on x86 ONNX Runtime makes them unsigned at load.
    """
    counted = ((node.name or node.outputs[0].name or "", _of_node(node)) for node in model.graph.all_nodes())
    return {name: pairs for name, pairs in counted if pairs is not None}


def warning(pairs_of: Mapping[str, Pairs]) -> str | None:
    """A warning about a model with these pairs, and what to do; None if so few can saturate that it does not matter."""
    total = sum(pairs_of.values(), Pairs())
    if total.share < SHARE_THAT_MATTERS:
        return None
    worst = max(pairs_of, key=lambda name: pairs_of[name].share)
    return (
        f"{total.share:.2%} of the pairs of INT8 weights (worst: {worst}, {pairs_of[worst].share:.2%}) can saturate on "
        "x86 CPUs without VNNI: answers are less exact there than on CPUs with VNNI. For the same answers on both, set "
        "quantize.portable: true."
    )


# The weight inputs of operators on 8-bit values, and of float operators behind DequantizeLinear.
_WEIGHTS = {"MatMulInteger": (1,), "QAttention": (1,), "DynamicQuantizeLSTM": (1, 2)}
_BETWEEN = {"MatMul": (1,), "Gemm": (1,), "Conv": (1,)}


def _of_node(node: ir.Node) -> Pairs | None:
    values = [node.inputs[at] for at in _WEIGHTS.get(node.op_type, ())]
    values += [_dequantized(node.inputs[at]) for at in _BETWEEN.get(node.op_type, ())]
    tensors = [tensor for value in values if (tensor := constant(value)) is not None]
    signed = [tensor for tensor in tensors if tensor.dtype == ir.DataType.INT8]
    if not signed:
        return None
    return sum((pairs(_as_summed(node, tensor.numpy())) for tensor in signed), Pairs())


def is_depthwise(node: ir.Node, weight: np.ndarray) -> bool:
    """Whether a convolution has one input channel per filter: its kernel sums in 32 bits."""
    return weight.shape[1] == 1 and number(node, "group", 1) > 1


def _dequantized(value: ir.Value | None) -> ir.Value | None:
    producer = value.producer() if value is not None else None
    return producer.inputs[0] if producer is not None and producer.op_type == "DequantizeLinear" else None


def _as_summed(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    """A weight as [..., K, N], with K in the kernel's order of summation.

    A convolution sums the channels of one kernel position after another. A depthwise one sums in 32 bits, so it has no
    pairs.
    """
    if node.op_type == "Conv":
        filters, channels = weight.shape[:2]
        if is_depthwise(node, weight):
            return np.empty((0, filters), np.int8)
        flat = weight.reshape(filters, channels, -1).transpose(2, 1, 0)
        return flat.reshape(-1, filters)
    if weight.ndim == 1:
        return weight[:, None]
    return np.swapaxes(weight, -1, -2) if number(node, "transB", 0) else weight
