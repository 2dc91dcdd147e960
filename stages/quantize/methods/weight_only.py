"""Weight-only quantization: weights in 8 or 4 bits, block by block, everything else float.

MatMul and Gemm become ONNX Runtime's MatMulNBits, lookups its GatherBlockQuantized. Both have a scale for every
`quantize.weight_only.block_size` weights (see `blockwise`). `weight_type` gives the bits; the bytes are unsigned in
any case, and `quantize.weight_only.symmetric` says whether blocks have a zero point of their own.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from onnx import ModelProto

from stages.common.base.errors import ParamsError
from stages.common.base.params import Quantize
from stages.quantize import blockwise, graphs
from stages.quantize.decision import Decision
from stages.quantize.inventory import WeightedNode
from stages.quantize.methods import Calibration
from stages.quantize.methods.rewriter import MICROSOFT, Constant, KeepFloatError, Rewriter, Rule, Site

BITS = MappingProxyType({"QInt8": 8, "QUInt8": 8, "QInt4": 4, "QUInt4": 4})

BLOCK_SIZES = (16, 32, 64, 128, 256)
"""Those that the kernels of ONNX Runtime take."""


def quantize(
    model: ModelProto, nodes: Sequence[WeightedNode], params: Quantize, calibration: Calibration
) -> tuple[ModelProto, dict[str, Decision]]:
    """Quantize `nodes`; see `Method`. Calibration is not needed.

    Raises:
        ParamsError: a block size that ONNX Runtime has no kernel for.
    """
    del calibration
    if params.weight_only.block_size not in BLOCK_SIZES:
        allowed = ", ".join(map(str, BLOCK_SIZES))
        raise ParamsError(f"quantize.weight_only.block_size is {params.weight_only.block_size}; allowed: {allowed}.")
    quantized = graphs.copy(model)
    return quantized, Rewriter(quantized, params).rewrite({node.name: RULES[node.op_type] for node in nodes})


def _matmul(site: Site) -> str:
    return _multiply(site, _matrix(site), site.node.output[0])


def _gemm(site: Site) -> str:
    """Alpha A B' + beta C, where ' may transpose: alpha goes into B, beta into C, and C is added after the product."""
    matrix = _matrix(site)
    if graphs.attribute(site.node, "transA", 0):
        raise KeepFloatError("it transposes its activations, which MatMulNBits cannot")
    if graphs.attribute(site.node, "transB", 0):
        matrix = Constant(matrix.name, matrix.values.T)
    alpha, beta = (graphs.attribute(site.node, name, 1.0) for name in ("alpha", "beta"))
    if alpha != 1:
        matrix = Constant(matrix.name, matrix.values * np.float32(alpha))
    if not site.input(2) or beta == 0:
        return _multiply(site, matrix, site.node.output[0])
    addend, bias = site.input(2), site.constant(2)
    if beta != 1 and bias is None:
        raise KeepFloatError("its bias is computed while the model runs, and scaled by beta")
    product = site.fresh_name(f"{site.node.output[0]}_product")
    how = _multiply(site, matrix, product)
    if beta != 1 and bias is not None:
        addend = site.store(bias, "beta", bias.values * np.float32(beta))
    site.emit_last("Add", [product, addend], site.node.output)
    return how


def _matrix(site: Site) -> Constant:
    if site.constant(1) is None and site.constant(0) is not None:
        raise KeepFloatError("its constant is on the left; MatMulNBits takes it on the right only")
    weight = site.weight(1)
    if weight.values.ndim != 2:
        raise KeepFloatError(f"its weight has {weight.values.ndim} dimensions; MatMulNBits takes two")
    return weight


def _multiply(site: Site, matrix: Constant, output: str) -> str:
    """A product with `matrix`, float32, shape [K, N]."""
    names, how = _stored(site, matrix, matrix.values.T)
    inner, outer = matrix.values.shape
    options = site.params.weight_only
    site.emit_last(
        "MatMulNBits", [site.input(0), *names], [output], MICROSOFT,
        K=inner, N=outer, bits=BITS[site.params.weight_type], block_size=options.block_size,
        accuracy_level=options.accuracy_level,
    )  # fmt: skip
    return how


def _gather(site: Site) -> str:
    weight = site.weight(0)
    if weight.values.ndim != 2 or graphs.attribute(site.node, "axis", 0) not in (0, -2):
        raise KeepFloatError("it is no lookup of rows in a matrix, and GatherBlockQuantized is one")
    width, bits = weight.values.shape[1], BITS[site.params.weight_type]
    if width * bits % 8:
        raise KeepFloatError(f"its rows of {width} values do not fill whole bytes, which GatherBlockQuantized demands")
    names, how = _stored(site, weight, weight.values, whole_rows=True)
    data, scales, *zero_points = names
    site.emit_last(
        "GatherBlockQuantized", [data, site.input(1), scales, *zero_points], site.node.output, MICROSOFT,
        bits=bits, block_size=site.params.weight_only.block_size,
        gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    return how


def _stored(site: Site, weight: Constant, rows: np.ndarray, whole_rows: bool = False) -> tuple[list[str], str]:
    """Quantize along the rows and store: names of values, scales and, where asymmetric, zero points; and how.

    Args:
        site: of the node.
        weight: what is replaced.
        rows: its values, float32, summed along their last axis.
        whole_rows: store a row as one run of values, without the padding of its last block.
    """
    options, bits = site.params.weight_only, BITS[site.params.weight_type]
    height, width = rows.shape
    size = blockwise.packed_bytes(height, width, bits, options.block_size, options.symmetric)
    if size >= rows.nbytes:
        raise KeepFloatError(f"its weight of {rows.nbytes} bytes would take {size} in blocks of {options.block_size}")
    blocks = blockwise.quantize(rows, bits, options.block_size, options.symmetric)
    site.replace_weight(Constant(weight.name, rows), blockwise.dequantize(blocks))
    stored = blocks.stored.reshape(height, -1)[:, :width] if whole_rows else blocks.stored
    constants = {"": stored, "_scale": blocks.scales, "_zero": blocks.zero_points}
    label = f"int{bits}"
    names = [
        site.store(weight, label + suffix, blockwise.packed(values, bits) if values.dtype == np.uint8 else values)
        for suffix, values in constants.items()
        if values is not None
    ]
    kind = "symmetric" if options.symmetric else "asymmetric"
    return names, f"{bits} bits in {kind} blocks of {options.block_size}"


RULES: dict[str, Rule] = {"Gather": _gather, "Gemm": _gemm, "MatMul": _matmul}
OP_TYPES = BY_DEFAULT = frozenset(RULES)
WHY_NOT: Mapping[str, str] = MappingProxyType({})
