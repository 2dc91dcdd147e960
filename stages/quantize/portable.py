"""Signed weights that saturate on no x86 CPU: no two neighbours sum to more than 128. Pure NumPy.

Steps of max(max |w|, max |w[2k] + w[2k + 1]|) / 127 are coarse enough for that, as each weight is rounded by half a
step at most. Of several sizes around it the one with the least squared error is taken; finer ones have to move the
pairs that sum to more. Then the errors of each output are made to sum to zero, to half a step, by rounding those the
other way that lie closest to the middle: activations that are positive on the whole, as behind a Relu, add up what
errors have in common.

The bytes are the same on every CPU: nothing depends on how NumPy orders equal values or sums floats there.
"""

from typing import Literal

import numpy as np

from stages.quantize.linear import Quantized, over_tiny

Summed = int | Literal["positions"] | None
"""The axis that a kernel sums a weight along; "positions" for a convolution, which sums the channels of one kernel
position after the other; None for a kernel that adds no pairs in 16 bits."""

LARGEST_SUM = 128
"""255 * 128 = 32640 fits into a signed 16-bit number, 255 * 129 = 32895 does not; nor does 255 * -129."""

_LARGEST = 127
_FEW = 128
_SHARES = np.linspace(1, 0.98, 6, dtype=np.float32)
_SHARES_OF_FEW = np.linspace(1.03, 0.96, 20, dtype=np.float32)
"""Sizes of the steps to try, as shares of the one that moves no pair. Where fewer than `_FEW` weights share a step,
their rounding errors differ much from step to step, and more of them win 0.1 to 0.5 dB; elsewhere they win nothing."""

_CHUNK = 1 << 20
"""Weights that are worked on at once."""


def quantize(
    weight: np.ndarray, summed: int | Literal["positions"], channel_axes: tuple[int, ...], least: np.ndarray | float = 0
) -> Quantized:
    """Quantize to signed 8 bits, without pairs that sum to more than 128.

    Args:
        weight: float32, finite, not empty.
        summed: along what it is summed.
        channel_axes: one scale for each index along these axes; empty for one scale in all.
        least: the scales are at least this; a number, or of the shape of `Quantized.scale`.
    """
    rows = _as_rows(weight, summed)
    scales = [weight.shape[axis] if axis in channel_axes else 1 for axis in range(weight.ndim)]
    groups = int(np.prod(scales))
    grouped = rows.reshape(groups, -1, rows.shape[-1])
    limits = np.broadcast_to(np.asarray(least, np.float32).reshape(-1), groups)
    values, scale = np.empty(grouped.shape, np.int8), np.empty(groups, np.float32)
    size = max(1, _CHUNK // grouped[0].size)
    for start in range(0, groups, size):
        part = slice(start, start + size)
        values[part], scale[part] = _quantize(grouped[part], limits[part])
    restored = _from_rows(values.reshape(rows.shape), weight.shape, summed)
    return Quantized(restored, scale.reshape(scales), np.zeros(scales, np.int8))


def _as_rows(weight: np.ndarray, summed: int | Literal["positions"]) -> np.ndarray:
    """Neighbours along the last axis; the other axes in their order."""
    if summed != "positions":
        return np.moveaxis(weight, summed, -1)
    filters, channels = weight.shape[:2]
    return weight.reshape(filters, channels, -1).transpose(0, 2, 1).reshape(filters, -1)


def _from_rows(rows: np.ndarray, shape: tuple[int, ...], summed: int | Literal["positions"]) -> np.ndarray:
    if summed != "positions":
        return np.ascontiguousarray(np.moveaxis(rows, -1, summed))
    filters, channels = shape[:2]
    return np.ascontiguousarray(rows.reshape(filters, -1, channels).transpose(0, 2, 1)).reshape(shape)


def _quantize(weight: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and scales of weights of shape [scales, rows, summed]."""
    size = max(1, _CHUNK // weight[:, 0].size)
    blocks = [slice(start, start + size) for start in range(0, weight.shape[1], size)]
    largest = np.zeros(len(weight), np.float32)
    for block in blocks:
        part = weight[:, block]
        for values in (part, part[..., 0:-1:2] + part[..., 1::2]):
            largest = np.maximum(largest, np.abs(values).max(axis=(1, 2), initial=0))
    shares = _SHARES_OF_FEW if weight[0].size < _FEW else _SHARES
    scales = over_tiny(np.maximum(largest * shares[:, None] / _LARGEST, least))
    errors = np.zeros(scales.shape)
    for block in blocks:
        for tried, scale in enumerate(scales):
            steps = weight[:, block] / scale[:, None, None]
            steps -= _rounded(steps)
            with np.errstate(over="ignore"):  # weights of 1e19 and more: the first share will do
                errors[tried] += np.einsum("grk,grk->g", steps, steps) * scale * scale
    best = np.take_along_axis(scales, errors.argmin(axis=0)[None], axis=0)[0]
    made = np.empty(weight.shape, np.int8)
    for block in blocks:
        steps = weight[:, block] / best[:, None, None]
        values = _rounded(steps)
        _balance(steps - values, values)
        made[:, block] = values
    return made, best


def _rounded(steps: np.ndarray) -> np.ndarray:
    """The nearest integers from -127 to 127; of a pair that sums to more than 128, the nearest that sum to 128."""
    rounded: np.ndarray = np.clip(np.rint(steps), -_LARGEST, _LARGEST)
    first, second = rounded[..., 0:-1:2], rounded[..., 1::2]
    above = np.abs(first + second) > LARGEST_SUM
    sign = np.sign(first[above])
    excess = steps[..., 0:-1:2][above] - steps[..., 1::2][above]
    half = np.clip(np.rint((sign * excess + LARGEST_SUM) / 2), LARGEST_SUM - _LARGEST, _LARGEST)
    first[above], second[above] = sign * half, sign * (LARGEST_SUM - half)
    return rounded


def _balance(errors: np.ndarray, values: np.ndarray) -> None:
    """Round some values the other way, in place, so that the errors of each row sum to less than half a step.

    Args:
        errors: in steps, weights less values, shape [scales, rows, summed].
        values: whole numbers, of that shape.
    """
    total = errors.sum(axis=-1, keepdims=True)
    wanted, toward = np.rint(np.abs(total)).astype(np.int64), np.sign(total)
    if not wanted.any():
        return
    partner = np.zeros_like(values)
    partner[..., 0:-1:2], partner[..., 1::2] = values[..., 1::2], values[..., 0:-1:2]
    moved = values + toward
    cost = -errors * toward
    cost[(cost >= 0) | (np.abs(moved) > _LARGEST) | (np.abs(moved + partner) > LARGEST_SUM)] = np.inf
    # One of a pair at most, or both together would exceed.
    first, second = cost[..., 0:-1:2], cost[..., 1::2]
    first_wins = first <= second
    second[first_wins] = np.inf
    first[~first_wins] = np.inf
    # The cheapest, of equal ones the first. By value, as NumPy sorts equal ones differently on different CPUs.
    most = min(int(wanted.max()), cost.shape[-1])
    ranked = np.sort(np.partition(cost, most - 1, axis=-1)[..., :most], axis=-1)
    limit = np.take_along_axis(ranked, np.clip(wanted, 1, most) - 1, axis=-1)
    below, level = cost < limit, (cost == limit) & np.isfinite(cost)
    missing = wanted - below.sum(axis=-1, keepdims=True)
    np.add(values, toward, out=values, where=below | (level & (np.cumsum(level, axis=-1) <= missing)))
