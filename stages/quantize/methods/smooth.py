"""Smoothing: scale moved from the channels of an activation into the rows of the weights that read it.

    x W = (x / s) (s W),    s = largest |x|^a / largest |row of W|^(1 - a),    for each channel

(Xiao et al., SmoothQuant, ICML 2023.) A channel with outliers no longer widens the one scale that all channels share.
The division is a Mul before the products; s is a power of two, so that it is exact and the answers of the float model
stay the same bits. The exponent a is searched for each activation, on rows of samples: the one that spoils the products
least, and none at all where that is better.
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
"""Columns of a weight that the noise is estimated on."""

GAIN = 0.9
"""Noise with smoothing over noise without, above which it is not worth its Mul."""


def apply(
    model: ir.Model, assigned: Sequence[Assignment], calibration: CalibrationFeeds
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Smooth what MatMul and Gemm nodes of the main graph read.

    Args:
        model: float; not changed.
        assigned: the nodes, each of a constant weight with two dimensions.
        calibration: feeds.

    Returns:
        The model, and outcomes for nodes that gain nothing by it.

    Raises:
        StageError: the model does not run on the calibration samples.
    """
    model = model.clone()
    by_name = {node.name: node for node in model.graph}
    wanted = [by_name[each.name] for each in assigned if each.name in by_name and _fits(by_name[each.name])]
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in wanted:
        if (value := node.inputs[0]) is not None:
            readers.setdefault(value, []).append(node)
    by_row = {each.name: each.params.activation_scale == "row" for each in assigned}
    seen = ranges.known(calibration, "minmax").rows(model, [name_of(value) for value in readers])
    names, smoothed = Names(model), set()
    for value, nodes in readers.items():
        if (rows := seen.get(name_of(value))) is None:
            continue
        scale = best(rows, [_weight(node) for node in nodes], by_row[nodes[0].name or ""])
        if scale is not None:
            _move(model, value, nodes, scale, names)
            smoothed |= {node.name for node in nodes}
    nothing = kept("its activation has no outliers that smoothing helps against")
    return model, {each.name: nothing for each in assigned if each.name not in smoothed}


def best(rows: np.ndarray, weights: Sequence[np.ndarray], by_row: bool) -> np.ndarray | None:
    """The scales of the exponent with the least noise; None where smoothing does not lower it much.

    Args:
        rows: of the activation, float32 [rows, K]. Scales are fitted on every other one, noise is taken on the rest.
        weights: that read it, float32 [K, N] each.
        by_row: whether each row has a scale of its own.

    Returns:
        float32 [K], powers of two.
    """
    fitted, held = (rows[::2], rows[1::2]) if len(rows) > 1 else (rows, rows)
    largest = np.abs(fitted).max(axis=0)
    of_weights = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    sampled = [weight[:, :: -(-weight.shape[1] // COLUMNS)] for weight in weights]
    least, chosen = GAIN * sum(noise(held, weight, by_row) for weight in sampled), None
    for exponent in EXPONENTS:
        scale = scales(largest, of_weights, exponent)
        with_it = sum(noise(held / scale, weight * scale[:, None], by_row) for weight in sampled)
        if with_it < least:
            least, chosen = with_it, scale
    return chosen


def scales(activation: np.ndarray, weight: np.ndarray, exponent: float) -> np.ndarray:
    """activation^exponent / weight^(1 - exponent), as the nearest powers of two around 1; 1 where either is zero.

    Args:
        activation: the largest magnitude of each channel, shape [K].
        weight: that of each row of the weights, shape [K].
        exponent: from 0 to 1.

    Returns:
        float32 [K].
    """
    sound = (activation > 0) & (weight > 0) & np.isfinite(activation)
    if not sound.any():
        return np.ones(activation.shape, np.float32)
    logs = np.zeros(activation.shape)
    logs[sound] = exponent * np.log2(activation[sound]) - (1 - exponent) * np.log2(weight[sound])
    logs[sound] -= np.median(logs[sound])
    powers: np.ndarray = np.exp2(np.clip(np.rint(logs), -12, 12)).astype(np.float32)
    return powers


def noise(rows: np.ndarray, weight: np.ndarray, by_row: bool) -> float:
    """Noise over signal power of a product in 8 bits: activations unsigned, weights signed with a scale per column."""
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
    two = weight is not None and weight.dtype == ir.DataType.FLOAT and weight.shape.rank() == 2 and weight.size > 0
    return two and node.op_type in ("Gemm", "MatMul") and not number(node, "transA", 0)


def _weight(node: ir.Node) -> np.ndarray:
    tensor = constant(node.inputs[1])
    assert tensor is not None
    values = np.asarray(tensor.numpy())
    return values.T if number(node, "transB", 0) else values


def _move(model: ir.Model, value: ir.Value, nodes: Sequence[ir.Node], scale: np.ndarray, names: Names) -> None:
    """Divide the activation by a scale for these nodes, and multiply their weights by it."""
    name = name_of(value)
    factor = add_initializer(model.graph, names.fresh(f"{name}_smoothing"), 1 / scale)
    divided = ir.node("Mul", [value, factor], name=names.fresh(f"{name}_Mul"))
    divided.outputs[0].name, divided.outputs[0].type = names.fresh(f"{name}_smooth"), value.type
    model.graph.insert_before(min(nodes, key=list(model.graph).index), divided)
    for node in nodes:
        weight = _weight(node) * scale[:, None]
        if number(node, "transB", 0):
            weight = np.ascontiguousarray(weight.T)
        stored = add_initializer(model.graph, names.fresh(f"{name_of(node.inputs[1])}_smooth"), weight)
        node.replace_input_with(0, divided.outputs[0])
        node.replace_input_with(1, stored)
