"""Weights are stored in 8 bits, but computed with in float: the file shrinks; speed and activations stay the same.

A stored weight is Cast to float and multiplied by its scales. ONNX Runtime folds both at load, so the operator reads a
constant float weight, as before.
"""

import math
from functools import partial

import onnx_ir as ir

from stages.common.graph.walk import number
from stages.common.graph.weights import CHANNEL_AXES, DEFAULT_OPERATORS, weight_inputs
from stages.quantize import linear, portable
from stages.quantize.methods.constants import OVERRIDABLE, Constant, KeepFloatError
from stages.quantize.methods.rewriter import Rewrite, Site


def _stored(site: Site) -> str:
    node = site.node
    indices = [index for index in weight_inputs(node) or () if site.constant(index) is not None]
    if not indices:
        raise KeepFloatError(OVERRIDABLE)
    weights = {index: site.weight(index) for index in indices}
    if node.op_type == "Gather" and weights[0].values.ndim < 2:
        raise KeepFloatError("its table has one dimension, so it is not an embedding")
    axes = {index: _channels(node, index, weight) for index, weight in weights.items()}
    scales = [math.prod(weight.values.shape[axis] for axis in axes[index]) for index, weight in weights.items()]
    if 3 * sum(weight.values.size for weight in weights.values()) < 4 * sum(scales):
        raise KeepFloatError("its scales would take as much as 8 bits save")
    inputs = list(node.inputs)
    for index, weight in weights.items():
        summed = _summed(node, weight, axes[index])
        quantized = site.quantized(weight, "QInt8", axes[index], summed=summed, pairs=False, reduce_range=False)
        kind = f"stored along {axes[index]}"
        inputs[index] = site.share(site.input(index), kind, partial(_floats, site, weight, quantized))
    site.keep(inputs)
    return "stored as QInt8, computed in float"


def _floats(site: Site, weight: Constant, quantized: linear.Quantized) -> ir.Value:
    """Store a weight, and emit its float values. An embedding that is also the last layer is stored once."""
    transposed = site.find(quantized.values.T) if quantized.values.ndim == 2 else None
    if transposed is not None:
        values = site.emit("Transpose", [transposed], perm=[1, 0])
    else:
        values = site.store(weight, "int8", quantized.values)
    floats = site.emit("Cast", [values], f"{weight.name}_floats", to=ir.DataType.FLOAT)
    return site.emit("Mul", [floats, site.store(weight, "int8_scale", quantized.scale)], f"{weight.name}_stored")


def _summed(node: ir.Node, weight: Constant, axes: tuple[int, ...]) -> portable.Summed:
    """What the operator sums a weight along; for a table, what a product that shares it sums along."""
    if node.op_type == "Conv":
        return "positions"
    others = set(range(weight.values.ndim)) - {*axes}
    return 0 if node.op_type == "ConvTranspose" else max(others)


def _channels(node: ir.Node, index: int, weight: Constant) -> tuple[int, ...]:
    ndim = weight.values.ndim
    if node.op_type == "Gather":  # in a stack of matrices, each column of each matrix, as for a product
        return linear.table_axes(weight.values) if ndim == 2 else (*range(ndim - 2), ndim - 1)
    axes = CHANNEL_AXES[node.op_type]
    if node.op_type == "Gemm" and number(node, "transB", 0):
        axes = (0,)
    if node.op_type in ("Gemm", "MatMul") and index == 0:
        axes = (-2,)
    return tuple(sorted(axis % ndim for axis in axes)) if ndim > 1 else ()


OP_TYPES = DEFAULT_OPERATORS["stored"]
REWRITES: dict[str, Rewrite] = dict.fromkeys(OP_TYPES, _stored)
