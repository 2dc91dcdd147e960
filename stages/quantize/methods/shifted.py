"""Convolutions along one axis as sums of products with shifted weights, so that each position has its own scale.

A convolution whose kernel has k positions along one axis and one along all others is a sum of k matrix products,

    y[p] = sum over t of x[p * stride + t * dilation] W[t] + bias,    x as [batch, positions..., channels].

Products can be quantized row by row (see `rows`), unlike ONNX Runtime's INT8 convolutions: a row is the channels of
one position. The rows are quantized once, and the k products read slices of them.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from stages.common.graph.walk import number
from stages.quantize.methods import rows
from stages.quantize.methods.constants import Constant, KeepFloatError
from stages.quantize.methods.rewriter import Site

MIN_CHANNELS = 8
"""Rows of fewer channels are too short for a scale per row."""

MAX_POSITIONS = 16
"""The longest kernel that is split into products, one per position."""

_END = np.iinfo(np.int64).max


def convolve(site: Site) -> str:
    """Emit a Conv as a sum of products by row; see `Rewrite`."""
    weight, bias = site.weight(1), site.constant(2)
    if bias is None and site.input(2) is not None:
        raise KeepFloatError("its bias is computed while the model runs")
    filters, channels, *kernel = weight.values.shape
    axis = max(range(len(kernel)), key=kernel.__getitem__)
    positions = kernel[axis]
    by_position = weight.values.reshape(filters, channels, positions).transpose(2, 1, 0)
    columns = (1,) if site.params.per_channel else ()
    left, negative = _channels_last(site, len(kernel)), not rows.never_negative(site.needed_input(0))
    quantized_rows = rows.quantize(site, left, channels, negative)
    values = rows.unfolded(site, left, quantized_rows.values, channels)
    scale = rows.unfolded(site, left, quantized_rows.scale, 1)
    low = rows.unfolded(site, left, quantized_rows.low, 1) if quantized_rows.low is not None else None
    parts, lows, sums = [], [], []
    for position in range(positions):
        bounds = _bounds(site, axis, position, positions, len(kernel))
        matrix = Constant(f"{weight.name}_{position}", np.ascontiguousarray(by_position[position]))
        quantized = site.quantized(matrix, site.params.weight_type, columns, summed=0)
        read = rows.Rows(
            _cut(site, values, bounds),
            _cut(site, scale, bounds),
            _cut(site, low, bounds) if low is not None else None,
        )
        parts.append(rows.scaled_product(site, left, read, matrix, quantized))
        if read.low is not None:
            lows.append(read.low)
            sums.append(rows.column_sums(quantized))
    if lows:
        all_lows = site.emit("Concat", lows, axis=-1) if positions > 1 else lows[0]
        parts.append(site.emit("MatMul", [all_lows, site.store(weight, "column_sums", np.array(sums))]))
    total = parts[0]
    for part in parts[1:]:
        total = site.emit("Add", [total, part])
    if bias is not None:
        total = site.emit("Add", [total, site.store(bias, "bias", bias.values.reshape(-1))])
    site.finish(site.emit("Transpose", [total], perm=[0, len(kernel) + 1, *range(1, len(kernel) + 1)]))
    return f"QInt8 per {'channel' if columns else 'tensor'}, activations per position"


def suits(site: Site) -> bool:
    """Whether a Conv can be emitted in this form."""
    weight, auto_pad = site.weight(1).values, site.node.attributes.get("auto_pad")
    explicit = auto_pad is None or auto_pad.as_string() in ("NOTSET", "VALID")
    one_group = number(site.node, "group", 1) == 1
    return explicit and one_group and site.params.weight_type == "QInt8" and suited(weight.shape)


def suited(shape: Sequence[int]) -> bool:
    """Whether a weight [filters, channels, kernel...] has a kernel along one axis, and enough channels."""
    _, channels, *kernel = shape
    long = [length for length in kernel if length > 1]
    return channels >= MIN_CHANNELS and len(long) <= 1 and max(long, default=1) <= MAX_POSITIONS


def _attribute(site: Site, name: str, count: int, default: int) -> list[int]:
    attribute = site.node.attributes.get(name)
    return [default] * count if attribute is None else list(attribute.as_ints())


def _channels_last(site: Site, spatial: int) -> ir.Value:
    """The padded activation as [batch, positions..., channels]."""
    order = [0, *range(2, spatial + 2), 1]
    value = site.emit("Transpose", [site.needed_input(0)], perm=order)
    pads = _attribute(site, "pads", 2 * spatial, 0)
    if any(pads):
        amounts = np.array([0, *pads[:spatial], 0, 0, *pads[spatial:], 0], np.int64)
        value = site.emit("Pad", [value, site.number("pads", amounts)])
    return value


def _bounds(site: Site, axis: int, position: int, positions: int, spatial: int) -> list[ir.Value]:
    """Starts, ends, axes and steps of the Slice that one position of the kernel reads; empty if it reads all rows."""
    strides, dilations = (_attribute(site, name, spatial, 1) for name in ("strides", "dilations"))
    first, last = position * dilations[axis], (position - positions + 1) * dilations[axis]
    axes = [at for at in range(spatial) if strides[at] > 1 or (at == axis and positions > 1)]
    starts = [first if at == axis else 0 for at in axes]
    ends = [last if at == axis and last else _END for at in axes]
    arrays = (starts, ends, [at + 1 for at in axes], [strides[at] for at in axes]) if axes else ()
    return [site.number("cut", np.array(numbers, np.int64)) for numbers in arrays]


def _cut(site: Site, value: ir.Value, bounds: Sequence[ir.Value]) -> ir.Value:
    """The part of a value, [batch, positions..., width], within these bounds."""
    return site.emit("Slice", [value, *bounds]) if bounds else value
