"""Weights are stored in 8 bits and computed with as floats: the file shrinks; speed and activations stay the same.

A stored weight is Cast to float and multiplied by its scales. ONNX Runtime folds both at load, so the operator reads a
constant float weight, as before.
"""

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from stages.common.base.params import Quantize
from stages.common.graph.walk import number
from stages.common.graph.weights import weight_inputs
from stages.quantize.methods import Assignment, CalibrationFeeds
from stages.quantize.methods.rewriter import Constant, KeepFloatError, Rewriter, Site
from stages.quantize.outcome import NodeOutcome

_CHANNELS: Mapping[str, tuple[int, ...]] = {
    "Attention": (-1,), "Conv": (0,), "ConvTranspose": (1,), "GRU": (0, 1), "Gemm": (-1,), "LSTM": (0, 1),
    "MatMul": (-1,), "RNN": (0, 1),
}  # fmt: skip
"""The axes of a weight with one scale per index."""

OP_TYPES = BY_DEFAULT = frozenset(_CHANNELS)
WHY_NOT: Mapping[str, str] = {}


def opset(params: Quantize) -> int:
    """The opset that a quantized node needs: Cast and Mul exist in all supported ones."""
    del params
    return 7


def quantize(
    model: ir.Model, assignments: Sequence[Assignment], calibration: CalibrationFeeds
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Quantize the assigned nodes; see `Method`. Calibration is not needed."""
    del calibration
    quantized = model.clone()
    return quantized, Rewriter(quantized).rewrite(
        {assigned.name: (_stored, assigned.params) for assigned in assignments}
    )


def _stored(site: Site) -> str:
    node = site.node
    indices = [index for index in weight_inputs(node) or () if site.constant(index) is not None]
    if not indices:
        raise KeepFloatError("its weight is computed while the model runs")
    weights = {index: site.weight(index) for index in indices}
    axes = {index: _channels(node, index, weight) for index, weight in weights.items()}
    scales = [math.prod(weight.values.shape[axis] for axis in axes[index]) for index, weight in weights.items()]
    if 3 * sum(weight.values.size for weight in weights.values()) < 4 * sum(scales):
        raise KeepFloatError("its scales would take as much as 8 bits save")
    inputs = list(node.inputs)
    for index, weight in weights.items():
        quantized = site.quantized(weight, "QInt8", axes[index], reduce_range=False)
        floats = site.emit("Cast", [site.store(weight, "int8", quantized.values)], f"{weight.name}_floats", to=1)
        scale = site.store(weight, "int8_scale", quantized.scale)
        inputs[index] = site.emit("Mul", [floats, scale], f"{weight.name}_stored")
    site.keep(inputs)
    return "stored as QInt8, computed in float"


def _channels(node: ir.Node, index: int, weight: Constant) -> tuple[int, ...]:
    ndim = weight.values.ndim
    axes = _CHANNELS[node.op_type]
    if node.op_type == "Gemm" and number(node, "transB", 0):
        axes = (0,)
    if node.op_type in ("Gemm", "MatMul") and index == 0:
        axes = (-2,)
    return tuple(sorted(axis % ndim for axis in axes)) if ndim > 1 else ()
