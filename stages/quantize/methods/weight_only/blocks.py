"""Block-wise quantization of a weight, and its packing as ONNX Runtime's MatMulNBits and GatherBlockQuantized read it.

A block is `block_size` weights in a row along the summed axis that share one scale, and a zero point where the blocks
are asymmetric: weight = (stored - zero_point) * scale, stored in 4 or 8 bits, unsigned, zero_point 2^(bits-1) where
symmetric (ONNX Runtime, docs/ContribOperators.md, com.microsoft.MatMulNBits).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Blocks:
    """A quantized matrix of `rows` rows, each split into blocks.

    Attributes:
        stored: uint8, shape [rows, blocks, block_size]; the end of a row is padded.
        scales: float32, shape [rows, blocks].
        zero_points: uint8, shape [rows, blocks]; None where symmetric.
        columns: weights of a row, without the padding.
    """

    stored: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None
    bits: int
    columns: int


def quantize(matrix: np.ndarray, bits: int, block_size: int, symmetric: bool) -> Blocks:
    """Quantize along the rows of a matrix, each block by itself.

    Symmetric: scale = m / -2^(bits-1), m being the block's value of largest magnitude with its sign, so that m itself
    is met exactly. Asymmetric: scale = (max - min) / (2^bits - 1) with 0 inside [min, max], zero_point = -min / scale.

    Args:
        matrix: float32, shape [rows, columns], finite.
        bits: 4 or 8.
        block_size: weights of a block.
        symmetric: zero point in the middle of the range.
    """
    rows, columns = matrix.shape
    padded = np.pad(matrix, ((0, 0), (0, -columns % block_size))).reshape(rows, -1, block_size)
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    lowest = np.minimum(padded.min(axis=2), 0.0)
    highest = np.maximum(padded.max(axis=2), 0.0)
    if symmetric:
        scales = np.where(-lowest >= highest, lowest, highest) / -middle
        zeros = np.full(scales.shape, middle, np.float32)
    else:
        scales = (highest - lowest) / top
        zeros = np.rint(-lowest / np.where(scales == 0, 1, scales))
    scales = np.where(scales == 0, 1, scales).astype(np.float32)
    stored = np.clip(np.rint(padded / scales[..., None]) + zeros[..., None], 0, top).astype(np.uint8)
    return Blocks(stored, scales, None if symmetric else zeros.astype(np.uint8), bits, columns)


def dequantize(blocks: Blocks) -> np.ndarray:
    """The matrix that the blocks stand for: float32, shape [rows, columns]."""
    zeros = 2 ** (blocks.bits - 1) if blocks.zero_points is None else blocks.zero_points[..., None].astype(np.float32)
    values = (blocks.stored.astype(np.float32) - zeros) * blocks.scales[..., None]
    matrix: np.ndarray = values.reshape(len(values), -1)[:, : blocks.columns]
    return matrix


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Values in as few bytes as they need along the last axis: of 4 bits two in a byte, the first in its low half."""
    if bits == 8:
        return values
    even = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, values.shape[-1] % 2)])
    halves: np.ndarray = even[..., 0::2] | (even[..., 1::2] << 4)
    return halves
