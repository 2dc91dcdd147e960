"""Weight-only quantization: weights have 8 or 4 bits, in blocks; everything else stays float.

MatMul and Gemm become ONNX Runtime's MatMulNBits, lookups its GatherBlockQuantized. Both have one scale per block of
`quantize.weight_only.block_size` weights (see `blocks`). `weight_type` sets the number of bits; the bytes are always
unsigned, and `quantize.weight_only.symmetric` says whether each block has its own zero point.
"""

import numpy as np
import onnx_ir as ir

from stages.common.graph.walk import MICROSOFT, name_of, number
from stages.quantize.methods.constants import Constant, KeepFloatError
from stages.quantize.methods.rewriter import Rewrite, Site
from stages.quantize.methods.weight_only import blocks

BITS = {"QInt8": 8, "QUInt8": 8, "QInt4": 4, "QUInt4": 4}


def _matmul(site: Site) -> str:
    product, how = _multiply(site, _matrix(site))
    site.finish(product)
    return how


def _gemm(site: Site) -> str:
    """Gemm, alpha A B' + beta C, where ' may transpose: alpha goes into B, beta into C, and an Add adds C."""
    matrix = _matrix(site)
    if number(site.node, "transA", 0):
        raise KeepFloatError("it transposes its activations, which MatMulNBits cannot")
    if number(site.node, "transB", 0):
        matrix = Constant(matrix.name, matrix.values.T)
    alpha, beta = (number(site.node, name, 1.0) for name in ("alpha", "beta"))
    if alpha != 1:
        matrix = Constant(matrix.name, matrix.values * np.float32(alpha))
    addend, bias = site.input(2), site.constant(2)
    if addend is None or beta == 0:
        product, how = _multiply(site, matrix)
        site.finish(product)
        return how
    if beta != 1 and bias is None:
        raise KeepFloatError("its bias is computed while the model runs and multiplied by beta")
    product, how = _multiply(site, matrix)
    if beta != 1 and bias is not None:
        addend = site.store(bias, "beta", bias.values * np.float32(beta))
    site.finish(site.emit("Add", [product, addend]))
    return how


def _matrix(site: Site) -> Constant:
    weight = site.right_weight()
    if weight.values.ndim != 2:
        raise KeepFloatError(f"its weight has {weight.values.ndim} dimensions; MatMulNBits takes two")
    return weight


def _multiply(site: Site, matrix: Constant) -> tuple[ir.Value, str]:
    """Emit the product with `matrix`, float32, shape [K, N]; returns it and how it is quantized."""
    stored, how = _stored(site, matrix, matrix.values.T)
    inner, outer = matrix.values.shape
    options = site.params.weight_only
    product = site.emit(
        "MatMulNBits", [site.input(0), *stored], f"{name_of(site.node.outputs[0])}_product", domain=MICROSOFT,
        K=inner, N=outer, bits=BITS[site.params.weight_type], block_size=options.block_size,
        accuracy_level=options.accuracy_level,
    )  # fmt: skip
    return product, how


def _gather(site: Site) -> str:
    weight = site.weight(0)
    if weight.values.ndim != 2 or number(site.node, "axis", 0) not in (0, -2):
        raise KeepFloatError("it does not look up rows of a matrix, as GatherBlockQuantized does")
    width, bits = weight.values.shape[1], BITS[site.params.weight_type]
    if width * bits % 8:
        raise KeepFloatError(f"its rows of {width} values do not fill whole bytes, as GatherBlockQuantized requires")
    stored, how = _stored(site, weight, weight.values, whole_rows=True)
    data, scales, *zero_points = stored
    rows = site.emit(
        "GatherBlockQuantized", [data, site.input(1), scales, *zero_points], domain=MICROSOFT,
        bits=bits, block_size=site.params.weight_only.block_size,
        gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    site.finish(rows)
    return how


def _stored(site: Site, weight: Constant, rows: np.ndarray, whole_rows: bool = False) -> tuple[list[ir.Value], str]:
    """Quantize a weight along its rows, and store values, scales and, if asymmetric, zero points.

    Args:
        site: the site of the node.
        weight: the float weight.
        rows: its values with the summed axis last, float32.
        whole_rows: store each row without the padding of its last block.

    Returns:
        The stored values, and how they are quantized.
    """
    options, bits = site.params.weight_only, BITS[site.params.weight_type]
    height, width = rows.shape
    quantized = blocks.quantize(rows, bits, options.block_size, options.symmetric)
    stored = quantized.stored.reshape(height, -1)[:, :width] if whole_rows else quantized.stored
    arrays = {"": blocks.packed(stored, bits), "_scale": quantized.scales}
    if quantized.zero_points is not None:
        arrays["_zero"] = blocks.packed(quantized.zero_points, bits)
    size = sum(array.nbytes for array in arrays.values())
    if size >= rows.nbytes:
        raise KeepFloatError(f"its weight of {rows.nbytes} bytes would take {size} in blocks of {options.block_size}")
    site.record_loss(rows, blocks.dequantize(quantized))
    values = [site.store(weight, f"int{bits}{suffix}", array) for suffix, array in arrays.items()]
    kind = "symmetric" if options.symmetric else "asymmetric"
    return values, f"{bits} bits in {kind} blocks of {options.block_size}"


REWRITES: dict[str, Rewrite] = {"Gather": _gather, "Gemm": _gemm, "MatMul": _matmul}
OP_TYPES = frozenset(REWRITES)
