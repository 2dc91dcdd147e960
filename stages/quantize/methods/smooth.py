"""Smoothing: move scale from the channels of an activation into the rows of the weights that multiply it.

    x W = (x / s) (s W),    s = largest |x|^a / largest |row of W|^(1 - a),    per channel

(Xiao et al., SmoothQuant, ICML 2023.) A channel with outliers then no longer widens the scale that all channels share.
The division is a Mul before the products; s is a power of two, so that it is exact and the float model's answers stay
identical. The exponent a is chosen per activation, on sampled rows: the one with the least noise in the products. If
smoothing hardly lowers the noise, it is not applied.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from stages.common.graph.names import Names
from stages.common.graph.walk import add_initializer, constant, name_of, number
from stages.quantize import linear
from stages.quantize.methods import Assignment, CalibrationFeeds
from stages.quantize.methods.static import ranges
from stages.quantize.outcome import NodeOutcome, kept

EXPONENTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

COLUMNS = 64
"""Number of weight columns that the noise is estimated on."""

GAIN = 0.9
"""Smoothing is worth its Mul if it lowers the noise below this share."""


def apply(
    model: ir.Model, assigned: Sequence[Assignment], calibration: CalibrationFeeds
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Smooth the activations of MatMul, Gemm and LSTM nodes of the main graph.

    Args:
        model: the float model; not changed.
        assigned: nodes with a constant weight.
        calibration: feeds.

    Returns:
        The model, and the outcomes of nodes that stay float because smoothing gains nothing.

    Raises:
        StageError: the model does not run on the calibration samples.
    """
    model = model.clone()
    by_name = {node.name: node for node in model.graph}
    readers: dict[tuple[ir.Value, str], list[ir.Node]] = {}
    for assignment in assigned:
        node = by_name.get(assignment.name)
        if node is not None and _fits(node) and (value := node.inputs[0]) is not None:
            readers.setdefault((value, assignment.params.activation_scale), []).append(node)
    known = ranges.known(calibration, "minmax")
    keys = {group: (group[1], *(node.name or "" for node in nodes)) for group, nodes in readers.items()}
    seen = known.rows(model, sorted({name_of(group[0]) for group, key in keys.items() if key not in known.smoothing}))
    names, smoothed = Names(model), set()
    for group, nodes in readers.items():
        rows = seen.get(name_of(group[0]))
        if keys[group] not in known.smoothing and rows is not None:
            known.smoothing[keys[group]] = best(rows, [_weight(node) for node in nodes], group[1] == "row").tolist()
        if any(powers := known.smoothing.get(keys[group], ())):
            _move(model, group[0], nodes, np.ldexp(np.float32(1), powers), names)
            smoothed |= {node.name for node in nodes}
    no_gain = kept("smoothing its activation gains nothing")
    return model, {assignment.name: no_gain for assignment in assigned if assignment.name not in smoothed}


def best(rows: np.ndarray, weights: Sequence[np.ndarray], by_row: bool) -> np.ndarray:
    """The scales of the exponent with the least noise; all 1 if smoothing hardly lowers the noise.

    Args:
        rows: rows of the activation, float32 [rows, K]; every other row fits scales, the rest measures noise.
        weights: the weights that multiply it, float32 [K, N] each.
        by_row: whether each row is quantized with its own scale.

    Returns:
        The scales as exponents of two, int [K].
    """
    fitted, held = (rows[::2], rows[1::2]) if len(rows) > 1 else (rows, rows)
    largest = np.abs(fitted).max(axis=0)
    of_weights = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    sampled = [weight[:, :: -(-weight.shape[1] // COLUMNS)] for weight in weights]
    least = GAIN * sum(noise(held, weight, by_row) for weight in sampled)
    chosen = np.zeros(rows.shape[1], np.int64)
    for exponent in EXPONENTS:
        powers = powers_of_two(largest, of_weights, exponent)
        scale = np.ldexp(np.float32(1), powers)
        smoothed = sum(noise(held / scale, weight * scale[:, None], by_row) for weight in sampled)
        if smoothed < least:
            least, chosen = smoothed, powers
    return chosen


def powers_of_two(activation: np.ndarray, weight: np.ndarray, exponent: float) -> np.ndarray:
    """log2 of activation^exponent / weight^(1 - exponent), rounded, with median 0; 0 where either is zero.

    Args:
        activation: the largest magnitude of each channel, shape [K].
        weight: the largest magnitude of each row of the weights, shape [K].
        exponent: from 0 to 1.

    Returns:
        int64 [K].
    """
    sound = (activation > 0) & (weight > 0) & np.isfinite(activation)
    logs = np.zeros(activation.shape)
    if sound.any():
        logs[sound] = exponent * np.log2(activation[sound]) - (1 - exponent) * np.log2(weight[sound])
        logs[sound] -= np.median(logs[sound])
    powers: np.ndarray = np.rint(logs).clip(-12, 12).astype(np.int64)
    return powers


def noise(rows: np.ndarray, weight: np.ndarray, by_row: bool) -> float:
    """Noise over signal power of an 8-bit product: unsigned activations, signed weights with a scale per column."""
    exact = rows.astype(np.float64) @ weight
    axis = 1 if by_row else None
    low = np.minimum(rows.min(axis=axis, keepdims=True), 0)
    span = np.maximum(rows.max(axis=axis, keepdims=True), 0) - low
    scale = np.maximum(span / 255, np.finfo(np.float32).tiny)
    values = (np.rint(rows / scale - np.rint(low / scale)).clip(0, 255) + np.rint(low / scale)) * scale
    quantized = linear.quantize(weight, "QInt8", (1,), reduce_range=False).dequantized()
    signal = float(np.square(exact).sum())
    return float(np.square(values.astype(np.float64) @ quantized - exact).sum()) / signal if signal else 0.0


def _fits(node: ir.Node) -> bool:
    weight = constant(node.inputs[1])
    if weight is None or weight.dtype != ir.DataType.FLOAT or not weight.size:
        return False
    product = node.op_type in ("Gemm", "MatMul") and weight.shape.rank() == 2 and not number(node, "transA", 0)
    return product or node.op_type == "LSTM"


def _stored(node: ir.Node) -> tuple[np.ndarray, bool]:
    """The weight as stored, and whether K is its last axis: [N, K] or, for an LSTM, [D, N, K]."""
    tensor = constant(node.inputs[1])
    assert tensor is not None
    return np.asarray(tensor.numpy()), node.op_type == "LSTM" or bool(number(node, "transB", 0))


def _weight(node: ir.Node) -> np.ndarray:
    """The weight that multiplies the activation, [K, N]; for an LSTM those of both directions."""
    values, last = _stored(node)
    return values.reshape(-1, values.shape[-1]).T if last else values


def _move(model: ir.Model, value: ir.Value, nodes: Sequence[ir.Node], scale: np.ndarray, names: Names) -> None:
    """Divide the activation of these nodes by a scale, and multiply their weights by it."""
    name = name_of(value)
    factor = add_initializer(model.graph, names.fresh(f"{name}_smoothing"), 1 / scale)
    divided = ir.node("Mul", [value, factor], name=names.fresh(f"{name}_Mul"))
    divided.outputs[0].name, divided.outputs[0].type = names.fresh(f"{name}_smooth"), value.type
    model.graph.insert_before(min(nodes, key=list(model.graph).index), divided)
    for node in nodes:
        weight, last = _stored(node)
        scaled = weight * (scale if last else scale[:, None])
        stored = add_initializer(model.graph, names.fresh(f"{name_of(node.inputs[1])}_smooth"), scaled)
        node.replace_input_with(0, divided.outputs[0])
        node.replace_input_with(1, stored)
