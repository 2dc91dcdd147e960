"""Dynamic quantization: weights INT8 in the file, activations quantized at run time with one scale a tensor.

The graphs are those of ONNX Runtime's `quantize_dynamic`, which its optimiser fuses into INT8 kernels at load:
DynamicQuantizeLinear, MatMulInteger, Cast and Mul for MatMul and Gemm; DynamicQuantizeLSTM, QAttention and
QEmbedLayerNormalization for what they are named after. They are written here, node by node, rather than by that
function, because it decides for the whole file what has to be decided for each node: whether its weight can have a
scale for each channel, whether it can be quantized at all, and in which graph it stands.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from onnx import ModelProto, TensorProto

from stages.common.base.errors import ParamsError
from stages.common.base.params import Quantize
from stages.quantize import graphs
from stages.quantize.decision import Decision, kept
from stages.quantize.graphs import attribute
from stages.quantize.inventory import WeightedNode
from stages.quantize.linear import Quantized
from stages.quantize.methods import Calibration
from stages.quantize.methods.rewriter import Constant, KeepFloatError, Rewriter, Rule, Site

OPSET = 11
"""DynamicQuantizeLinear came with it."""

WEIGHT_TYPES = ("QInt8", "QUInt8")


def quantize(
    model: ModelProto, nodes: Sequence[WeightedNode], params: Quantize, calibration: Calibration
) -> tuple[ModelProto, dict[str, Decision]]:
    """Quantize `nodes`; see `Method`. Calibration is not needed.

    Raises:
        ParamsError: the weight type has 4 bits.
    """
    del calibration
    if params.weight_type not in WEIGHT_TYPES:
        raise ParamsError(
            f"quantize.weight_type is {params.weight_type}, which is for quantize.method weight_only; "
            f"dynamic takes {' or '.join(WEIGHT_TYPES)}."
        )
    version = graphs.opset(model) or 0
    if version < OPSET:
        reason = (
            f"INT8 needs opset {OPSET}, the model has {version} and cannot be converted; export it with 13 or later"
        )
        return model, {node.name: kept(reason) for node in nodes}
    quantized = graphs.copy(model)
    decisions = Rewriter(quantized, params).rewrite({node.name: RULES[node.op_type] for node in nodes})
    return quantized, decisions


def _matmul(site: Site) -> str:
    if site.constant(1) is None and site.constant(0) is not None:
        raise KeepFloatError("its constant is on the left; INT8 kernels take it on the right only")
    weight = site.weight(1)
    if weight.values.ndim < 2:
        raise KeepFloatError("its weight has one dimension; INT8 kernels need two")
    quantized, how = _columns(site, weight)
    _multiply(site, site.input(0), weight, quantized, site.node.output[0])
    return how


def _gemm(site: Site) -> str:
    """The sum alpha A' B' + beta C, where ' may transpose: alpha goes into the scales of B, beta into C."""
    node = site.node
    if site.constant(1) is None and site.constant(0) is not None:
        raise KeepFloatError("its constant is on the left; INT8 kernels take it on the right only")
    weight = site.weight(1)
    if attribute(node, "transB", 0):
        weight = Constant(weight.name, np.ascontiguousarray(weight.values.T))
    quantized, how = _columns(site, weight)
    left = site.input(0)
    if attribute(node, "transA", 0):
        left = site.emit("Transpose", [left], f"{left}_transposed", perm=[1, 0])
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    quantized = dataclasses.replace(quantized, scale=quantized.scale * np.float32(alpha))
    if not site.input(2) or beta == 0:
        _multiply(site, left, weight, quantized, node.output[0])
        return how
    product = site.fresh_name(f"{node.output[0]}_product")
    _multiply(site, left, weight, quantized, product)
    site.emit_last("Add", [product, _scaled_bias(site, beta)], node.output)
    return how


def _scaled_bias(site: Site, beta: float) -> str:
    name = site.input(2)
    bias = site.constant(2)
    if beta == 1:
        return name
    if bias is None:
        factor = site.store(site.weight(1), "beta", np.array(beta, np.float32))
        return site.emit("Mul", [name, factor], f"{name}_beta")
    return site.store(bias, "beta", (bias.values * beta).astype(np.float32))


def _multiply(site: Site, left: str, weight: Constant, quantized: Quantized, output: str) -> None:
    """MatMulInteger, and its product scaled back to float."""
    activation = site.activation(left)
    stem = site.node.output[0]
    inputs = [activation.values, site.store(weight, "int8", quantized.values), activation.zero_point]
    if np.any(quantized.zero_point):
        inputs.append(site.store(weight, "int8_zero", _compact(quantized.zero_point)))
    integers = site.emit("MatMulInteger", inputs, f"{stem}_integers")
    floats = site.emit("Cast", [integers], f"{stem}_floats", to=TensorProto.FLOAT)
    scale = site.store(weight, "int8_scale", _compact(quantized.scale))
    both = site.emit("Mul", [activation.scale, scale], f"{stem}_scale")
    site.emit_last("Mul", [floats, both], [output])


def _columns(site: Site, weight: Constant) -> tuple[Quantized, str]:
    """Quantize the right side of a product [..., K, N]: a scale for each column of each matrix, or one in all."""
    kind, ndim = site.params.weight_type, weight.values.ndim
    if not site.params.per_channel:
        return site.quantized(weight, kind), f"{kind} per tensor"
    columns = tuple(axis for axis in range(ndim) if axis != ndim - 2)
    return site.quantized(weight, kind, columns), f"{kind} per channel"


def _compact(values: np.ndarray) -> np.ndarray:
    """Scales or zero points in the shape that MatMulInteger takes: scalar, vector, or that of a stack of matrices."""
    if values.size == 1:
        return values.reshape(())
    return values.reshape(-1) if values.ndim == 2 else values


def _gather(site: Site) -> str:
    """An embedding: 8-bit rows are picked, then scaled back to float."""
    weight = site.weight(0)
    kind, ndim = site.params.weight_type, weight.values.ndim
    if ndim < 2:
        raise KeepFloatError("its table has one dimension: numbers to look up rather than an embedding")
    output = site.node.output[0]
    axis = int(attribute(site.node, "axis", 0)) % ndim
    by_row = site.params.per_channel and ndim == 2 and axis == 0 and kind == "QInt8"
    quantized = site.quantized(weight, kind, (0,) if by_row else (), reduce_range=False)
    stored = site.store(weight, "int8", quantized.values)
    rows = site.emit("Gather", [stored, site.input(1)], f"{output}_int8", axis=axis)
    if not by_row:
        scale = site.store(weight, "int8_scale", quantized.scale.reshape(()))
        zero_point = site.store(weight, "int8_zero", quantized.zero_point.reshape(()))
        site.emit_last("DequantizeLinear", [rows, scale, zero_point], site.node.output)
        return f"{kind} per tensor"
    floats = site.emit("Cast", [rows], f"{output}_floats", to=TensorProto.FLOAT)
    scale = site.store(weight, "int8_scale", quantized.scale)
    scales = site.emit("Gather", [scale, site.input(1)], f"{output}_scale", axis=0)
    site.emit_last("Mul", [floats, scales], site.node.output)
    return f"{kind} per row"


def _lstm(site: Site) -> str:
    """W [directions, 4 hidden, inputs] and R likewise; the INT8 kernel takes them transposed, and signed."""
    weights = [site.weight(1), site.weight(2)]
    channels = (0, 1) if site.params.per_channel else (0,)
    values, scales = [], []
    for weight in weights:
        quantized = site.quantized(weight, "QInt8", channels)
        shape = weight.values.shape[: len(channels)]
        transposed = np.ascontiguousarray(quantized.values.transpose(0, 2, 1))
        values.append(site.store(weight, "int8", transposed))
        scales.append(site.store(weight, "int8_scale", quantized.scale.reshape(shape)))
        scales.append(site.store(weight, "int8_zero", quantized.zero_point.reshape(shape)))
    optional = [site.input(index) for index in range(3, 8)]
    site.replace("DynamicQuantizeLSTM", [site.input(0), *values, *optional, *scales], skip=("layout",))
    return f"QInt8 per {'channel' if site.params.per_channel else 'direction'}"


def _attention(site: Site) -> str:
    known = {"do_rotary", "mask_filter_value", "num_heads", "past_present_share_buffer", "scale", "unidirectional"}
    unknown = sorted({each.name for each in site.node.attribute} - known)
    if unknown:
        raise KeepFloatError(f"the INT8 kernel has no attribute {unknown[0]}")
    if site.input(5) or site.input(6):
        raise KeepFloatError("the INT8 kernel takes neither an attention bias nor a shared past")
    weight = site.weight(1)
    quantized, how = _columns(site, weight)
    activation = site.activation(site.input(0))
    zero_point = _compact(quantized.zero_point)
    # The INT8 kernel demands a bias.
    bias = site.input(2) or site.store(weight, "bias", np.zeros(weight.values.shape[1], np.float32))
    site.replace(
        "QAttention",
        [
            activation.values,
            site.store(weight, "int8", quantized.values),
            bias,
            activation.scale,
            site.store(weight, "int8_scale", _compact(quantized.scale)),
            site.input(3),
            activation.zero_point,
            site.store(weight, "int8_zero", zero_point),
            site.input(4),
        ],
    )
    return how


def _embed_layer_normalization(site: Site) -> str:
    """The INT8 kernel takes every constant as uint8, the embeddings as well as gamma and beta."""
    if len(site.node.output) > 2:
        raise KeepFloatError("it has a third output, the sum of the embeddings, which the INT8 kernel has not")
    if site.input(8) or attribute(site.node, "mask_index_type", 0):
        raise KeepFloatError("the INT8 kernel takes no position ids and no mask_index_type")
    weights = [site.weight(index) if site.input(index) else None for index in range(2, 7)]
    values: list[str] = []
    scales: list[str] = []
    zero_points: list[str] = []
    for weight in weights:
        if weight is None:
            for names in (values, scales, zero_points):
                names.append("")
            continue
        quantized = site.quantized(weight, "QUInt8", reduce_range=False)
        values.append(site.store(weight, "int8", quantized.values))
        scales.append(site.store(weight, "int8_scale", quantized.scale.reshape(())))
        zero_points.append(site.store(weight, "int8_zero", quantized.zero_point.reshape(())))
    ids = [site.input(0), site.input(1)]
    site.replace("QEmbedLayerNormalization", [*ids, *values, site.input(7), *scales, *zero_points])
    return "QUInt8 per tensor"


def _conv(site: Site) -> str:
    """Out by default. Weight [M, C / groups, ...]; a scale for each filter where it is symmetric."""
    weight, bias = site.weight(1), site.constant(2)
    if site.input(2) and bias is None:
        raise KeepFloatError("its bias is computed while the model runs")
    kind = site.params.weight_type
    by_filter = site.params.per_channel and kind == "QInt8"
    quantized = site.quantized(weight, kind, (0,) if by_filter else ())
    activation = site.activation(site.input(0))
    output = site.node.output[0]
    inputs = [activation.values, site.store(weight, "int8", quantized.values), activation.zero_point]
    if np.any(quantized.zero_point):
        inputs.append(site.store(weight, "int8_zero", quantized.zero_point.reshape(())))
    integers = site.emit_like("ConvInteger", inputs, f"{output}_integers")
    floats = site.emit("Cast", [integers], f"{output}_floats", to=TensorProto.FLOAT)
    per_filter = (-1, *(1,) * (weight.values.ndim - 2))
    scale = site.store(weight, "int8_scale", quantized.scale.reshape(per_filter if by_filter else ()))
    both = site.emit("Mul", [activation.scale, scale], f"{output}_scale")
    how = f"{kind} per {'channel' if by_filter else 'tensor'}"
    if bias is None:
        site.emit_last("Mul", [floats, both], [output])
        return how
    product = site.emit("Mul", [floats, both], f"{output}_product")
    site.emit_last("Add", [product, site.store(bias, "broadcast", bias.values.reshape(per_filter))], [output])
    return how


RULES: dict[str, Rule] = {
    "Attention": _attention,
    "Conv": _conv,
    "EmbedLayerNormalization": _embed_layer_normalization,
    "Gather": _gather,
    "Gemm": _gemm,
    "LSTM": _lstm,
    "MatMul": _matmul,
}
OP_TYPES = frozenset(RULES)
BY_DEFAULT = OP_TYPES - {"Conv"}
WHY_NOT: Mapping[str, str] = MappingProxyType(
    {"Conv": "slower in INT8 with dynamic ranges; use quantize.method static, or name Conv in quantize.op_types"}
)
