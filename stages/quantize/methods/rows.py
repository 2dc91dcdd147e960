"""Products with one activation scale per row: the answer for a row does not depend on the rest of its batch.

ONNX Runtime's DynamicQuantizeLinear takes one scale for a whole tensor. Here, in standard operators, for activations
[rows, K]:

    low = min(0, min of the row), high = max(0, max of the row), s = max(high - low, tiny) / 255, z = round(-low / s)
    q = QuantizeLinear(x, s, z); i = MatMulInteger(q, W)
    y = s * (i * weight scale) - s * z * (sum of each column of W * weight scale) + bias

MatMulInteger takes one zero point for all rows of q, so it gets none, and the last line corrects for that: correction
and bias are one Gemm, [-s * z, 1] by [column sums; bias], which ONNX Runtime fuses with a following Relu. If an
activation cannot be negative, z is 0 and nothing needs correcting.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from stages.common.graph.walk import constant, only_reader
from stages.quantize.linear import Quantized
from stages.quantize.methods.constants import Constant
from stages.quantize.methods.rewriter import Site

_NEVER_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"})
_COMBINED = frozenset({"Add", "Concat", "Mul"})
"""Their output is never negative if no input is."""

_SIGN_KEEPING = frozenset(
    {"AveragePool", "Dropout", "Expand", "Flatten", "Gather", "GlobalAveragePool", "Identity", "MaxPool"}
    | {"ReduceMax", "ReduceMean", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Their output is never negative if their first input is not."""


@dataclass(frozen=True)
class Rows:
    """An activation quantized row by row.

    Attributes:
        values: uint8, shape [rows, K].
        scale: shape [rows, 1].
        low: -scale * zero point, shape [rows, 1]; None if the activation is never negative.
    """

    values: ir.Value
    scale: ir.Value
    low: ir.Value | None


def multiply(site: Site, left: ir.Value, weight: Constant, quantized: Quantized, bias: np.ndarray | None) -> ir.Value:
    """Emit the product of an activation and a weight, plus a bias.

    Args:
        site: the site of the node.
        left: the activation, shape [..., K], of any rank.
        weight: the float weight.
        quantized: the quantized weight, shape [K, N].
        bias: float32, shape [N]; None for no bias.

    Returns:
        Shape [..., N].
    """
    inner, width = quantized.values.shape
    matrix = site.rank(left) == 2
    rows = site.share(left, "rows", lambda: quantize(site, left, None if matrix else inner))
    product = scaled_product(site, left, rows, weight, quantized)
    if rows.low is not None:
        sums = column_sums(quantized)
        if bias is None:
            factors, table = rows.low, site.store(weight, "column_sums", sums[None])
        else:
            factors = site.share(left, "factors", lambda: _with_ones(site, rows.low))
            table = site.store(weight, "column_sums_and_bias", np.stack([sums, bias]))
        product = site.emit("Gemm", [factors, table, product])
    elif bias is not None:
        product = site.emit("Add", [product, site.store(weight, "bias", bias)])
    return product if matrix else unfolded(site, left, product, width)


def scaled_product(site: Site, left: ir.Value, rows: Rows, weight: Constant, quantized: Quantized) -> ir.Value:
    """Emit the float product of quantized rows of `left` and a weight [K, N], not corrected for their zero points."""
    inputs: list[ir.Value | None] = [rows.values, site.store(weight, "int8", quantized.values)]
    if quantized.zero_point.any():
        inputs += [None, site.store(weight, "int8_zero", compact(quantized.zero_point))]
    floats = site.emit("Cast", [site.emit("MatMulInteger", inputs)], to=ir.DataType.FLOAT)
    factor = site.emit("Mul", [_one(site, left), site.store(weight, "int8_scale", compact(quantized.scale))])
    return site.emit("Mul", [site.emit("Mul", [floats, factor]), rows.scale])


def column_sums(quantized: Quantized) -> np.ndarray:
    """The sums of the columns of a weight [K, N], float32, shape [N]."""
    integers: np.ndarray = (quantized.values.astype(np.int64) - quantized.zero_point).sum(axis=0)
    return (integers * quantized.scale.reshape(-1).astype(np.float64)).astype(np.float32)


def unfolded(site: Site, like: ir.Value, value: ir.Value, width: int) -> ir.Value:
    """Reshape rows, [rows, width], to the leading dimensions of `like`, [..., width].

    The result has a declared width: shape inference does not find it, and ONNX's inference of Attention fails without.
    """
    shape = site.share(like, "leading", lambda: _leading(site, like))
    last = site.number(f"{width}", np.array([width], np.int64))
    output = site.emit("Reshape", [value, site.emit("Concat", [shape, last], axis=0)])
    rank = site.rank(like)
    if rank is not None:
        output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([*[None] * (rank - 1), width])
    return output


def compact(values: np.ndarray) -> np.ndarray:
    """Scales or zero points in the shape that MatMulInteger takes: a scalar, a vector, or that of stacked matrices."""
    if values.size == 1:
        return values.reshape(())
    return values.reshape(-1) if values.ndim == 2 else values


def never_negative(value: ir.Value | None, depth: int = 6) -> bool:
    """Whether the operators that compute a value guarantee that it is never below 0."""
    tensor = constant(value)
    if tensor is not None:
        return tensor.dtype.is_floating_point() and bool((tensor.numpy() >= 0).all())
    node = value.producer() if value is not None else None
    if node is None or node.domain or depth == 0:
        return False
    kind, inputs = node.op_type, node.inputs
    if kind == "Clip":
        lowest = ir.convenience.get_const_tensor(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else None
        return lowest is not None and float(lowest.numpy()) >= 0
    if kind in _COMBINED:
        return all(never_negative(source, depth - 1) for source in inputs)
    return kind in _NEVER_NEGATIVE or (kind in _SIGN_KEEPING and never_negative(inputs[0], depth - 1))


def bias_after(node: ir.Node, columns: int, matrix: bool) -> tuple[ir.Node, np.ndarray] | None:
    """The Add that is the only reader of a product and adds a constant bias, [N]; None if no node does."""
    add = only_reader(node.outputs[0])
    if add is None or add.op_type != "Add" or add.domain:
        return None
    tensor = constant(next((value for value in add.inputs if value is not node.outputs[0]), None))
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size != columns:
        return None
    values = tensor.numpy()
    # A bias of higher rank would raise the rank of the sum.
    shapes = ((columns,), (1, columns)) if matrix else ((columns,),)
    return (add, values.reshape(-1)) if values.shape in shapes else None


def quantize(site: Site, left: ir.Value, inner: int | None, negative: bool | None = None) -> Rows:
    """Emit the quantization of an activation, row by row.

    Args:
        site: the site of the node that reads it.
        left: the activation.
        inner: the length of its rows, to reshape it to [rows, inner]; None if it has rank 2 already.
        negative: whether it can be below 0; if None, `never_negative` decides.
    """
    negative = not never_negative(left) if negative is None else negative
    name, rows = left.name, left
    if inner is not None:
        shape = site.number(f"rows_of_{inner}", np.array([-1, inner], np.int64))
        rows = site.emit("Reshape", [left, shape], f"{name}_rows")
    zero = site.number("zero", np.array(0, np.float32))
    tiny = site.number("tiny", np.array(np.finfo(np.float32).tiny, np.float32))
    levels = site.number("levels", np.array(1 / 255, np.float32))
    vector = site.number("vector", np.array([-1], np.int64))
    if not negative:
        low = shift = None
        span = _extreme(site, "ReduceMax", rows)
    else:
        high = site.emit("Max", [_extreme(site, "ReduceMax", rows), zero], f"{name}_high")
        low = site.emit("Min", [_extreme(site, "ReduceMin", rows), zero], f"{name}_low")
        span = site.emit("Sub", [high, low], f"{name}_span")
    scale = site.emit("Max", [site.emit("Mul", [span, levels]), tiny], f"{name}_row_scale")
    inputs = [rows, site.emit("Reshape", [scale, vector])]
    if low is not None:
        # The negative zero point, low / scale; times the scale it is the correction.
        shift = site.emit("Round", [site.emit("Div", [low, scale])], f"{name}_shift")
        unsigned = site.emit("Cast", [site.emit("Neg", [shift])], to=ir.DataType.UINT8)
        inputs.append(site.emit("Reshape", [unsigned, vector], f"{name}_row_zero"))
    values = site.emit("QuantizeLinear", inputs, f"{name}_row_int8", axis=0)
    corrected = site.emit("Mul", [scale, shift]) if shift is not None else None
    return Rows(values, scale, corrected)


def _extreme(site: Site, op_type: str, rows: ir.Value) -> ir.Value:
    """The largest or smallest value of each row, shape [rows, 1]. Axes are an input since opset 18."""
    if site.opset >= 18:
        return site.emit(op_type, [rows, site.number("columns", np.array([1], np.int64))], keepdims=1)
    return site.emit(op_type, [rows], axes=[1], keepdims=1)


def _one(site: Site, left: ir.Value) -> ir.Value:
    """The number 1, computed at run time, once per graph.

    ONNX Runtime fuses MatMulInteger, Cast and the multiplication by the scales of both sides into one kernel,
    MatMulIntegerToFloat, only if the left scale is a single computed number.
    """

    def make() -> ir.Value:
        size = site.emit("Cast", [site.emit("Size", [left])], to=ir.DataType.FLOAT)
        return site.emit("Div", [size, size], "one_at_run_time")

    return site.share(None, "one", make)


def _with_ones(site: Site, column: ir.Value) -> ir.Value:
    """[column, 1], shape [rows, 2]."""
    pads = site.number("one_column_behind", np.array([0, 0, 0, 1], np.int64))
    return site.emit("Pad", [column, pads, site.number("one", np.array(1, np.float32))])


def _leading(site: Site, left: ir.Value) -> ir.Value:
    """The shape of a value without its last dimension."""
    first, last = (site.number(name, np.array([at], np.int64)) for name, at in (("first", 0), ("last", -1)))
    return site.emit("Slice", [site.emit("Shape", [left]), first, last], f"{left.name}_leading")
