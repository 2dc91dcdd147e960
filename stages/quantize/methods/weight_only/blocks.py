"""Block-wise quantization of a weight, packed as ONNX Runtime's MatMulNBits and GatherBlockQuantized read it.

A block is `block_size` consecutive weights along the summed axis, with one scale and, if asymmetric, one zero point:
weight = (stored - zero_point) * scale. Stored values are unsigned, of 4 or 8 bits; symmetric blocks have zero_point
2^(bits-1) (ONNX Runtime, docs/ContribOperators.md, com.microsoft.MatMulNBits).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Blocks:
    """A quantized matrix of `rows` rows, each split into blocks.

    Attributes:
        stored: uint8, shape [rows, blocks, block_size]; the last block of a row is padded.
        scales: float32, shape [rows, blocks].
        zero_points: uint8, shape [rows, blocks]; None if symmetric.
        bits: 4 or 8.
        columns: number of weights in a row, without padding.
    """

    stored: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None
    bits: int
    columns: int


def quantize(matrix: np.ndarray, bits: int, block_size: int, symmetric: bool) -> Blocks:
    """Quantize the rows of a matrix block by block.

    Symmetric: scale = m / -2^(bits-1), where m is the block's value of largest magnitude, with its sign, so that m is
    represented exactly. Asymmetric: scale = (max - min) / (2^bits - 1) with 0 inside [min, max], zero_point =
    -min / scale.

    Args:
        matrix: float32, shape [rows, columns], finite.
        bits: 4 or 8.
        block_size: number of weights in a block.
        symmetric: put the zero point in the middle of the range.
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
    """The matrix that the blocks represent: float32, shape [rows, columns]."""
    zeros = 2 ** (blocks.bits - 1) if blocks.zero_points is None else blocks.zero_points[..., None].astype(np.float32)
    values = (blocks.stored.astype(np.float32) - zeros) * blocks.scales[..., None]
    matrix: np.ndarray = values.reshape(len(values), -1)[:, : blocks.columns]
    return matrix


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Pack values along the last axis: two 4-bit values per byte, the first in the low half; 8-bit values stay."""
    if bits == 8:
        return values
    even = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, values.shape[-1] % 2)])
    halves: np.ndarray = even[..., 0::2] | (even[..., 1::2] << 4)
    return halves
