"""Signed weights whose rounding errors cancel, and that do not saturate on any x86 CPU. Pure NumPy.

Several scales are tried, and the one with the least squared error is used. Then the weights closest to the middle
between two steps are rounded the other way until the errors of each output sum to at most half a step: after a Relu all
activations are positive, so errors of one sign would add up.

Weights do not saturate if no two neighbours sum to more than 128. A scale of max(max |w|, max |w[2k] + w[2k + 1]|) /
127 is coarse enough for that, as rounding moves each weight by at most half a step; finer ones have to move the pairs
that exceed 128.

The bytes are the same on every CPU: nothing depends on how NumPy orders equal values or sums floats.
"""

from typing import Literal

import numpy as np

from stages.quantize.linear import Quantized, without_underflow

Summed = int | Literal["positions"] | None
"""The axis that a kernel sums a weight along; "positions" for a convolution, which sums the channels of one kernel
position after another; None if the weights are not summed."""

LARGEST_SUM = 128
"""255 * 128 = 32640 fits into a signed 16-bit number, 255 * 129 = 32895 does not; nor does 255 * -129."""

_LARGEST = 127
_FEW = 128
_SHARES = np.linspace(1, 0.98, 6, dtype=np.float32)
_SHARES_OF_FEW = np.linspace(1.03, 0.96, 20, dtype=np.float32)
"""Scales to try, as shares of the one that moves no pair. If fewer than `_FEW` weights share a scale, their rounding
errors vary much from scale to scale, and trying more gains 0.1 to 0.5 dB; otherwise it gains nothing."""

_CHUNK = 1 << 20
"""Weights to process at a time."""


def quantize(
    weight: np.ndarray,
    summed: int | Literal["positions"],
    channel_axes: tuple[int, ...],
    min_scale: np.ndarray | float = 0,
    pairs: bool = True,
) -> Quantized:
    """Quantize to signed 8 bits, so that the errors of each output sum to about nothing.

    Args:
        weight: float32, finite, not empty.
        summed: what the kernel sums along, see `Summed`.
        channel_axes: axes with one scale per index; empty for a single scale.
        min_scale: lower bound of the scales, a number or an array of the shape of `Quantized.scale`.
        pairs: whether the kernel adds pairs in 16 bits, so that no pair may sum to more than 128.
    """
    rows = _as_rows(weight, summed, channel_axes)
    scales = [weight.shape[axis] if axis in channel_axes else 1 for axis in range(weight.ndim)]
    groups = int(np.prod(scales))
    grouped = rows.reshape(groups, -1, rows.shape[-1])
    limits = np.broadcast_to(np.asarray(min_scale, np.float32).reshape(-1), groups)
    values, scale = np.empty(grouped.shape, np.int8), np.empty(groups, np.float32)
    size = max(1, _CHUNK // grouped[0].size)
    for start in range(0, groups, size):
        part = slice(start, start + size)
        values[part], scale[part] = _quantize(grouped[part], limits[part], LARGEST_SUM if pairs else 2 * _LARGEST)
    restored = _from_rows(values.reshape(rows.shape), weight.shape, summed, channel_axes)
    return Quantized(restored, scale.reshape(scales), np.zeros(scales, np.int8))


def _order(ndim: int, summed: int, channel_axes: tuple[int, ...]) -> list[int]:
    """The axes with a scale per index first, the summed one last."""
    between = [axis for axis in range(ndim) if axis != summed and axis not in channel_axes]
    return [*channel_axes, *between, summed]


def _as_rows(weight: np.ndarray, summed: int | Literal["positions"], channel_axes: tuple[int, ...]) -> np.ndarray:
    """The weight with a scale per index of its first axes, and neighbours along its last axis."""
    if summed != "positions":
        return weight.transpose(_order(weight.ndim, summed, channel_axes))
    filters, channels = weight.shape[:2]
    return weight.reshape(filters, channels, -1).transpose(0, 2, 1).reshape(filters, -1)


def _from_rows(
    rows: np.ndarray, shape: tuple[int, ...], summed: int | Literal["positions"], channel_axes: tuple[int, ...]
) -> np.ndarray:
    if summed != "positions":
        return np.ascontiguousarray(rows.transpose(np.argsort(_order(rows.ndim, summed, channel_axes))))
    filters, channels = shape[:2]
    return np.ascontiguousarray(rows.reshape(filters, -1, channels).transpose(0, 2, 1)).reshape(shape)


def _quantize(weight: np.ndarray, min_scale: np.ndarray, largest_sum: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and scales of weights of shape [scales, rows, summed], whose pairs sum to at most `largest_sum`."""
    size = max(1, _CHUNK // weight[:, 0].size)
    blocks = [slice(start, start + size) for start in range(0, weight.shape[1], size)]
    largest = np.zeros(len(weight), np.float32)
    for block in blocks:
        part = weight[:, block]
        sums = part[..., 0:-1:2] + part[..., 1::2] if largest_sum == LARGEST_SUM else part
        for values in (part, sums):
            largest = np.maximum(largest, np.abs(values).max(axis=(1, 2), initial=0))
    shares = _SHARES_OF_FEW if weight[0].size < _FEW else _SHARES
    scales = without_underflow(np.maximum(largest * shares[:, None] / _LARGEST, min_scale))
    errors = np.zeros(scales.shape)
    for block in blocks:
        for number, scale in enumerate(scales):
            steps = weight[:, block] / scale[:, None, None]
            steps -= _rounded(steps, largest_sum)
            with np.errstate(over="ignore"):  # weights of 1e19 and more: the first share is used
                errors[number] += np.einsum("grk,grk->g", steps, steps) * scale * scale
    best = np.take_along_axis(scales, errors.argmin(axis=0)[None], axis=0)[0]
    quantized = np.empty(weight.shape, np.int8)
    for block in blocks:
        steps = weight[:, block] / best[:, None, None]
        values = _rounded(steps, largest_sum)
        _balance(steps - values, values, largest_sum)
        quantized[:, block] = values
    return quantized, best


def _rounded(steps: np.ndarray, largest_sum: int) -> np.ndarray:
    """The nearest integers from -127 to 127; a pair with a larger sum becomes the nearest pair that has this sum."""
    rounded: np.ndarray = np.clip(np.rint(steps), -_LARGEST, _LARGEST)
    first, second = rounded[..., 0:-1:2], rounded[..., 1::2]
    above = np.abs(first + second) > largest_sum
    sign = np.sign(first[above])
    excess = steps[..., 0:-1:2][above] - steps[..., 1::2][above]
    half = np.clip(np.rint((sign * excess + largest_sum) / 2), largest_sum - _LARGEST, _LARGEST)
    first[above], second[above] = sign * half, sign * (largest_sum - half)
    return rounded


def _balance(errors: np.ndarray, values: np.ndarray, largest_sum: int) -> None:
    """Round some values the other way, in place, so that the errors of each row sum to at most half a step.

    Args:
        errors: weights minus values, in steps, shape [scales, rows, summed].
        values: integers stored as floats, of the same shape.
        largest_sum: the largest sum of a pair.
    """
    total = errors.sum(axis=-1, keepdims=True)
    wanted, toward = np.rint(np.abs(total)).astype(np.int64), np.sign(total)
    if not wanted.any():
        return
    partner = np.zeros_like(values)
    partner[..., 0:-1:2], partner[..., 1::2] = values[..., 1::2], values[..., 0:-1:2]
    moved = values + toward
    cost = -errors * toward
    cost[(cost >= 0) | (np.abs(moved) > _LARGEST) | (np.abs(moved + partner) > largest_sum)] = np.inf
    # Move at most one of each pair: moving both could exceed the limit.
    first, second = cost[..., 0:-1:2], cost[..., 1::2]
    first_wins = first <= second
    second[first_wins] = np.inf
    first[~first_wins] = np.inf
    # The cheapest moves, the first among equals. By value, as NumPy orders equal values differently by CPU.
    most = min(int(wanted.max()), cost.shape[-1])
    ranked = np.sort(np.partition(cost, most - 1, axis=-1)[..., :most], axis=-1)
    limit = np.take_along_axis(ranked, np.clip(wanted, 1, most) - 1, axis=-1)
    below, level = cost < limit, (cost == limit) & np.isfinite(cost)
    missing = wanted - below.sum(axis=-1, keepdims=True)
    np.add(values, toward, out=values, where=below | (level & (np.cumsum(level, axis=-1) <= missing)))
