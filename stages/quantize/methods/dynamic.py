"""Dynamic quantization: weights are INT8 in the file, activations are quantized at run time, by default per tensor.

The graphs are those of ONNX Runtime's `quantize_dynamic`, which its optimizer fuses into INT8 kernels at load:
DynamicQuantizeLinear, MatMulInteger, Cast and Mul for MatMul and Gemm; DynamicQuantizeLSTM, QAttention and
QEmbedLayerNormalization for the operators in their names. That function is not used because it decides for the whole
file what must be decided per node: whether the weight can have a scale per channel, whether the node can be quantized
at all, and in which graph it is.
"""

import dataclasses

import numpy as np
import onnx_ir as ir

from stages.common.graph.walk import name_of, number
from stages.quantize import linear
from stages.quantize.linear import Quantized
from stages.quantize.methods import rows, shifted
from stages.quantize.methods.constants import Constant, KeepFloatError
from stages.quantize.methods.rewriter import Rewrite, Site

PER_TENSOR = ", activations per tensor"
"""The remark on a node that keeps a scale per tensor although one per row was requested."""

ROW_TYPES = frozenset({"Gemm", "MatMul"})
"""The operators that can have an activation scale per row."""


def _matmul(site: Site) -> str:
    weight, left = site.right_weight(), site.needed_input(0)
    if weight.values.ndim < 2:
        raise KeepFloatError("its weight has one dimension; INT8 kernels need two")
    quantized, how = _columns(site, weight)
    if not _by_row(site, weight):
        site.finish(_multiply(site, left, weight, quantized))
        return how
    add_and_bias = None
    if not rows.never_negative(left):
        add_and_bias = rows.bias_after(site.node, weight.values.shape[1], site.rank(left) == 2)
    if add_and_bias is not None:
        site.absorb(add_and_bias[0])
    site.finish(rows.multiply(site, left, weight, quantized, add_and_bias[1] if add_and_bias else None))
    return how


def _gemm(site: Site) -> str:
    """Gemm, alpha A' B' + beta C, where ' may transpose: alpha goes into the scales of B, beta into C."""
    node = site.node
    weight = site.right_weight()
    if number(node, "transB", 0):
        weight = Constant(weight.name, np.ascontiguousarray(weight.values.T))
    quantized, how = _columns(site, weight)
    left = site.needed_input(0)
    if number(node, "transA", 0):
        left = site.emit("Transpose", [left], f"{left.name}_transposed", perm=[1, 0])
    alpha, beta = number(node, "alpha", 1.0), number(node, "beta", 1.0)
    quantized = dataclasses.replace(quantized, scale=quantized.scale * np.float32(alpha))
    by_row = _by_row(site, weight)
    bias = _vector(site.constant(2), beta, weight.values.shape[1]) if by_row and beta != 0 else None
    output = rows.multiply(site, left, weight, quantized, bias) if by_row else _multiply(site, left, weight, quantized)
    if site.input(2) is not None and beta != 0 and bias is None:
        output = site.emit("Add", [output, _scaled_bias(site, beta)])
    site.finish(output)
    return how


def _by_row(site: Site, weight: Constant) -> bool:
    """Whether the activations get a scale per row; those of Attention and of stacked matrices keep a tensor scale."""
    rows_wanted = site.params.activation_scale == "row"
    return rows_wanted and site.node.op_type in ROW_TYPES and weight.values.ndim == 2


def _vector(bias: Constant | None, beta: float, columns: int) -> np.ndarray | None:
    """A constant bias that is the same for every row, times `beta`, shape [columns]; None for any other bias."""
    if bias is None or bias.values.size not in (1, columns) or bias.values.shape[:-1] not in ((), (1,)):
        return None
    return np.broadcast_to((bias.values * np.float32(beta)).reshape(-1), columns).astype(np.float32)


def _scaled_bias(site: Site, beta: float) -> ir.Value:
    value, bias = site.needed_input(2), site.constant(2)
    if beta == 1:
        return value
    if bias is None:
        factor = site.store(site.weight(1), "beta", np.array(beta, np.float32))
        return site.emit("Mul", [value, factor], f"{value.name}_beta")
    return site.store(bias, "beta", (bias.values * beta).astype(np.float32))


def _multiply(site: Site, left: ir.Value, weight: Constant, quantized: Quantized) -> ir.Value:
    """Emit MatMulInteger, and scale its product back to float."""
    activation = site.activation(left)
    stem = name_of(site.node.outputs[0])
    inputs = [activation.values, site.store(weight, "int8", quantized.values), activation.zero_point]
    if np.any(quantized.zero_point):
        inputs.append(site.store(weight, "int8_zero", rows.compact(quantized.zero_point)))
    integers = site.emit("MatMulInteger", inputs, f"{stem}_integers")
    floats = site.emit("Cast", [integers], f"{stem}_floats", to=ir.DataType.FLOAT)
    scale = site.store(weight, "int8_scale", rows.compact(quantized.scale))
    both = site.emit("Mul", [activation.scale, scale], f"{stem}_scale")
    return site.emit("Mul", [floats, both])


def _columns(site: Site, weight: Constant) -> tuple[Quantized, str]:
    """Quantize the right side of a product, [..., K, N]: one scale per column of each matrix, or one for all."""
    kind, ndim = site.params.weight_type, weight.values.ndim
    columns = tuple(axis for axis in range(ndim) if axis != ndim - 2) if site.params.per_channel else ()
    activations = ", activations per row" if _by_row(site, weight) else _tensor_scale(site)
    how = f"{kind} per {'channel' if columns else 'tensor'}{activations}"
    return site.quantized(weight, kind, columns, summed=ndim - 2), how


def _gather(site: Site) -> str:
    """An embedding: look up INT8 rows, then scale them back to float."""
    weight = site.weight(0)
    kind, ndim = site.params.weight_type, weight.values.ndim
    if ndim < 2:
        raise KeepFloatError("its table has one dimension, so it is not an embedding")
    output, indices = name_of(site.node.outputs[0]), site.input(1)
    axis = int(number(site.node, "axis", 0)) % ndim
    scaled = site.params.per_channel and ndim == 2 and axis == 0 and kind == "QInt8"
    axes = linear.table_axes(weight.values) if scaled else ()
    quantized = site.quantized(weight, kind, axes, reduce_range=False)
    stored = site.store(weight, "int8", quantized.values)
    looked_up = site.emit("Gather", [stored, indices], f"{output}_int8", axis=axis)
    if not axes:
        scale = site.store(weight, "int8_scale", quantized.scale.reshape(()))
        zero_point = site.store(weight, "int8_zero", quantized.zero_point.reshape(()))
        site.finish(site.emit("DequantizeLinear", [looked_up, scale, zero_point]))
        return f"{kind} per tensor"
    floats = site.emit("Cast", [looked_up], f"{output}_floats", to=ir.DataType.FLOAT)
    if axes == (1,):
        site.finish(site.emit("Mul", [floats, site.store(weight, "int8_scale", quantized.scale.reshape(-1))]))
        return f"{kind} per column"
    scale = site.store(weight, "int8_scale", quantized.scale)
    scales = site.emit("Gather", [scale, indices], f"{output}_scale", axis=0)
    site.finish(site.emit("Mul", [floats, scales]))
    return f"{kind} per row"


def _lstm(site: Site) -> str:
    """W and R, [directions, 4 hidden, inputs] and [directions, 4 hidden, hidden]; the kernel takes them transposed."""
    weights = [site.weight(1), site.weight(2)]
    channels = (0, 1) if site.params.per_channel else (0,)
    values, scales = [], []
    for weight in weights:
        quantized = site.quantized(weight, "QInt8", channels, summed=2)
        shape = weight.values.shape[: len(channels)]
        transposed = np.ascontiguousarray(quantized.values.transpose(0, 2, 1))
        values.append(site.store(weight, "int8", transposed))
        scales.append(site.store(weight, "int8_scale", quantized.scale.reshape(shape)))
        scales.append(site.store(weight, "int8_zero", quantized.zero_point.reshape(shape)))
    optional = [site.input(index) for index in range(3, 8)]
    site.replace("DynamicQuantizeLSTM", [site.input(0), *values, *optional, *scales], skip=("layout",))
    return f"QInt8 per {'channel' if site.params.per_channel else 'direction'}{_tensor_scale(site)}"


def _attention(site: Site) -> str:
    known = {"do_rotary", "mask_filter_value", "num_heads", "past_present_share_buffer", "scale", "unidirectional"}
    unknown = sorted(set(site.node.attributes) - known)
    if unknown:
        raise KeepFloatError(f"the INT8 kernel has no attribute {unknown[0]}")
    if site.input(5) is not None or site.input(6) is not None:
        raise KeepFloatError("the INT8 kernel takes neither an attention bias nor a shared past")
    weight = site.weight(1)
    quantized, how = _columns(site, weight)
    activation = site.activation(site.needed_input(0))
    # The INT8 kernel requires a bias.
    bias = site.input(2) or site.store(weight, "bias", np.zeros(weight.values.shape[1], np.float32))
    site.replace(
        "QAttention",
        [
            activation.values,
            site.store(weight, "int8", quantized.values),
            bias,
            activation.scale,
            site.store(weight, "int8_scale", rows.compact(quantized.scale)),
            site.input(3),
            activation.zero_point,
            site.store(weight, "int8_zero", rows.compact(quantized.zero_point)),
            site.input(4),
        ],
    )
    return how


def _embed_layer_normalization(site: Site) -> str:
    """The INT8 kernel takes all constants as uint8: the embeddings, gamma and beta."""
    if len(site.node.outputs) > 2:
        raise KeepFloatError("it has a third output, the sum of the embeddings, which the INT8 kernel lacks")
    if site.input(8) is not None or number(site.node, "mask_index_type", 0):
        raise KeepFloatError("the INT8 kernel takes no position ids and no mask_index_type")
    weights = [site.weight(index) if site.input(index) is not None else None for index in range(2, 7)]
    stored: list[tuple[ir.Value | None, ...]] = []
    for weight in weights:
        if weight is None:
            stored.append((None, None, None))
            continue
        quantized = site.quantized(weight, "QUInt8", reduce_range=False)
        values = site.store(weight, "int8", quantized.values)
        scale = site.store(weight, "int8_scale", quantized.scale.reshape(()))
        stored.append((values, scale, site.store(weight, "int8_zero", quantized.zero_point.reshape(()))))
    embeddings, scales, zero_points = zip(*stored, strict=True)
    inputs = [site.input(0), site.input(1), *embeddings, site.input(7), *scales, *zero_points]
    site.replace("QEmbedLayerNormalization", inputs)
    return "QUInt8 per tensor"


def _conv(site: Site) -> str:
    """Not quantized by default. Weight [M, C / groups, ...]; one scale per filter if it is signed."""
    if site.params.activation_scale == "row" and shifted.suits(site):
        return shifted.convolve(site)
    weight, bias = site.weight(1), site.constant(2)
    if site.input(2) is not None and bias is None:
        raise KeepFloatError("its bias is computed while the model runs")
    kind = site.params.weight_type
    by_filter = site.params.per_channel and kind == "QInt8"
    quantized = site.quantized(weight, kind, (0,) if by_filter else ())
    activation = site.activation(site.needed_input(0))
    output = name_of(site.node.outputs[0])
    inputs = [activation.values, site.store(weight, "int8", quantized.values), activation.zero_point]
    if np.any(quantized.zero_point):
        inputs.append(site.store(weight, "int8_zero", quantized.zero_point.reshape(())))
    integers = site.emit("ConvInteger", inputs, f"{output}_integers", like=list(site.node.attributes.values()))
    floats = site.emit("Cast", [integers], f"{output}_floats", to=ir.DataType.FLOAT)
    per_filter = (-1, *(1,) * (weight.values.ndim - 2))
    scale = site.store(weight, "int8_scale", quantized.scale.reshape(per_filter if by_filter else ()))
    both = site.emit("Mul", [activation.scale, scale], f"{output}_scale")
    product = site.emit("Mul", [floats, both], f"{output}_product")
    if bias is not None:
        product = site.emit("Add", [product, site.store(bias, "broadcast", bias.values.reshape(per_filter))])
    site.finish(product)
    return f"{kind} per {'channel' if by_filter else 'tensor'}{_tensor_scale(site)}"


def _tensor_scale(site: Site) -> str:
    """The remark on an operator whose kernel only takes a tensor scale, if a scale per row was requested."""
    return PER_TENSOR if site.params.activation_scale == "row" else ""


REWRITES: dict[str, Rewrite] = {
    "Attention": _attention,
    "Conv": _conv,
    "EmbedLayerNormalization": _embed_layer_normalization,
    "Gather": _gather,
    "Gemm": _gemm,
    "LSTM": _lstm,
    "MatMul": _matmul,
}
OP_TYPES = frozenset(REWRITES)
