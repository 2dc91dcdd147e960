"""Products with one activation scale per row: the answer for a row does not depend on the others in its batch.

ONNX Runtime's DynamicQuantizeLinear takes one scale for a whole tensor. Here, in standard operators, for activations
laid out as [rows, K]:

    low = min(0, min of the row), high = max(0, max of the row), s = max(high - low, tiny) / 255, z = round(-low / s)
    q = QuantizeLinear(x, s, z); i = MatMulInteger(q, W)
    y = s * (i * weight scale) - s * z * (sum of each column of W * weight scale) + bias

The kernel takes one zero point of q for all rows, so none is given, and the last line corrects for it: correction and
bias together are one Gemm, [-s * z, 1] by [column sums; bias], which ONNX Runtime fuses with a Relu behind it. Where an
activation cannot be negative, z is 0 and there is nothing to correct.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from stages.common.graph.walk import constant, only_reader
from stages.quantize.linear import Quantized
from stages.quantize.methods.rewriter import Constant, Site

OPSET = 13
"""QuantizeLinear along an axis came with it."""

_NEVER_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"})
_COMBINED = frozenset({"Add", "Concat", "Mul"})
"""Their output is never negative where no input is."""

_PASSED_ON = frozenset(
    {"AveragePool", "Dropout", "Expand", "Flatten", "Gather", "GlobalAveragePool", "Identity", "MaxPool"}
    | {"ReduceMax", "ReduceMean", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Their output is never negative where their first input is not."""


@dataclass(frozen=True)
class Rows:
    """An activation quantized row by row.

    Attributes:
        values: uint8, shape [rows, K].
        scale: shape [rows, 1].
        low: -scale * zero point, shape [rows, 1]; None where the activation is never negative.
    """

    values: ir.Value
    scale: ir.Value
    low: ir.Value | None


def multiply(site: Site, left: ir.Value, weight: Constant, quantized: Quantized, bias: np.ndarray | None) -> ir.Value:
    """A product of rows with a weight, and a bias added.

    Args:
        site: of the node.
        left: shape [..., K], of any rank.
        weight: what is replaced.
        quantized: of it, shape [K, N].
        bias: float32, shape [N]; None for none.

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
    """Rows made of `left` times a weight [K, N], as floats, without what the zero points of the rows add."""
    inputs: list[ir.Value | None] = [rows.values, site.store(weight, "int8", quantized.values)]
    if quantized.zero_point.any():
        inputs += [None, site.store(weight, "int8_zero", _vector(quantized.zero_point))]
    floats = site.emit("Cast", [site.emit("MatMulInteger", inputs)], to=ir.DataType.FLOAT)
    factor = site.emit("Mul", [_one(site, left), site.store(weight, "int8_scale", _vector(quantized.scale))])
    return site.emit("Mul", [site.emit("Mul", [floats, factor]), rows.scale])


def column_sums(quantized: Quantized) -> np.ndarray:
    """What each column of a weight [K, N] sums to, float32, shape [N]."""
    integers: np.ndarray = (quantized.values.astype(np.int64) - quantized.zero_point).sum(axis=0)
    return (integers * quantized.scale.reshape(-1).astype(np.float64)).astype(np.float32)


def unfolded(site: Site, like: ir.Value, value: ir.Value, width: int) -> ir.Value:
    """Rows [rows, width] with the leading dimensions of another value, shape [..., width].

    The width is declared: no inference finds it behind such a Reshape, and ONNX's own of Attention fails without it.
    """
    shape = site.share(like, "leading", lambda: _leading(site, like))
    last = site.number(f"{width}", np.array([width], np.int64))
    made = site.emit("Reshape", [value, site.emit("Concat", [shape, last], axis=0)])
    rank = site.rank(like)
    if rank is not None:
        made.type, made.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([*[None] * (rank - 1), width])
    return made


def _vector(values: np.ndarray) -> np.ndarray:
    """Scales or zero points as a vector, or as a number where there is one."""
    return values.reshape(-1) if values.size > 1 else values.reshape(())


def never_negative(value: ir.Value | None, depth: int = 6) -> bool:
    """Whether a value is never below 0, as far as the operators that make it tell."""
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
    return kind in _NEVER_NEGATIVE or (kind in _PASSED_ON and never_negative(inputs[0], depth - 1))


def bias_behind(node: ir.Node, columns: int, matrix: bool) -> tuple[ir.Node, np.ndarray] | None:
    """The Add that alone reads a product and adds one constant per column to it, and that constant, shape [N]."""
    add = only_reader(node.outputs[0])
    if add is None or add.op_type != "Add" or add.domain:
        return None
    tensor = constant(next((value for value in add.inputs if value is not node.outputs[0]), None))
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size != columns:
        return None
    values = tensor.numpy()
    # Of no more dimensions than the product, so that the sum has its rank.
    shapes = ((columns,), (1, columns)) if matrix else ((columns,),)
    return (add, values.reshape(-1)) if values.shape in shapes else None


def quantize(site: Site, left: ir.Value, inner: int | None, negative: bool | None = None) -> Rows:
    """Quantize the rows of an activation.

    Args:
        site: of the node that reads it.
        left: the activation.
        inner: its last dimension, along which it is laid out as rows; None where it has two already.
        negative: whether it can be below 0; None where the operators that make it tell.
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
        # As a negative number: low / scale, which times the scale is what the correction adds.
        shift = site.emit("Round", [site.emit("Div", [low, scale])], f"{name}_shift")
        unsigned = site.emit("Cast", [site.emit("Neg", [shift])], to=ir.DataType.UINT8)
        inputs.append(site.emit("Reshape", [unsigned, vector], f"{name}_row_zero"))
    values = site.emit("QuantizeLinear", inputs, f"{name}_row_int8", axis=0)
    corrected = site.emit("Mul", [scale, shift]) if shift is not None else None
    return Rows(values, scale, corrected)


def _extreme(site: Site, op_type: str, rows: ir.Value) -> ir.Value:
    """The largest or smallest value of each row, shape [rows, 1]; the axes became an input in opset 18."""
    if site.opset >= 18:
        return site.emit(op_type, [rows, site.number("columns", np.array([1], np.int64))], keepdims=1)
    return site.emit(op_type, [rows], axes=[1], keepdims=1)


def _one(site: Site, left: ir.Value) -> ir.Value:
    """The number 1, computed at run time, once in a graph.

    ONNX Runtime fuses MatMulInteger, Cast and a multiplication by the scales of both sides into one kernel,
    MatMulIntegerToFloat, where the scale of the left side is a single computed number.
    """

    def made() -> ir.Value:
        size = site.emit("Cast", [site.emit("Size", [left])], to=ir.DataType.FLOAT)
        return site.emit("Div", [size, size], "one_at_run_time")

    return site.share(None, "one", made)


def _with_ones(site: Site, column: ir.Value) -> ir.Value:
    """[column, 1], shape [rows, 2]."""
    pads = site.number("one_column_behind", np.array([0, 0, 0, 1], np.int64))
    return site.emit("Pad", [column, pads, site.number("one", np.array(1, np.float32))])


def _leading(site: Site, left: ir.Value) -> ir.Value:
    """The shape of a value without its last dimension."""
    first, last = (site.number(name, np.array([at], np.int64)) for name, at in (("first", 0), ("last", -1)))
    return site.emit("Slice", [site.emit("Shape", [left]), first, last], f"{left.name}_leading")
