"""Static quantization: weights and activations are INT8, with ranges of activations calibrated on samples.

The file holds QuantizeLinear and DequantizeLinear pairs (QDQ) around float operators, as ONNX Runtime's
`quantize_static` writes them; ONNX Runtime fuses them into INT8 kernels at load. That function is not used because it
fails on a whole graph for one Gemm with a two-dimensional bias or one scikit-learn operator, keeps every activation in
memory, and works on several copies of the model.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from stages.common.graph.walk import name_of, number
from stages.common.graph.weights import DEFAULT_OPERATORS
from stages.quantize import portable, saturation
from stages.quantize.linear import Quantized
from stages.quantize.methods import AXIS_OPSET, Assignment, CalibrationFeeds
from stages.quantize.methods.constants import Constant, KeepFloatError
from stages.quantize.methods.rewriter import Rewrite, Rewriter, Site
from stages.quantize.methods.static import fold_scales, join_bias, pad_filters, pool_last, qdq, ranges
from stages.quantize.outcome import NodeOutcome, kept, kept_in_opset

OP_TYPES = DEFAULT_OPERATORS["static"]

MIN_OPSET = 10
"""The first opset with QuantizeLinear."""

_BIAS_LIMIT = 2.0**30
"""The largest magnitude of a bias, which has 32 bits: it leaves room for the sum that the bias is added to."""

_LEVELS = {"QUInt8": (np.uint8, 0, 255), "QInt8": (np.int8, -128, 127)}


def quantize(
    model: ir.Model, assignments: Sequence[Assignment], calibration: CalibrationFeeds
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Quantize the assigned nodes; see `methods.quantize`.

    Raises:
        StageError: the model does not run on the calibration samples.
    """
    version = model.opset_imports.get("", 0)
    if version < MIN_OPSET:
        return model, {assigned.name: kept_in_opset(version, MIN_OPSET) for assigned in assignments}
    quantized = model.clone()
    named = {assigned.name: assigned.params for assigned in assignments}
    params = assignments[0].params  # calibration and activation_type are the same for all nodes
    fold_scales.apply(quantized, named)
    join_bias.apply(quantized, named)
    pool_last.apply(quantized)
    pad_filters.apply(quantized, {assigned.name for assigned in assignments if assigned.padded})
    rewriter = Rewriter(quantized)
    outcomes = _unfit(rewriter, assignments)
    graph = quantized.graph
    chosen = [node for node in graph if node.name in named and node.name not in outcomes]
    if not chosen:
        return model, outcomes
    tensors = {name_of(value): value for value in qdq.place(graph, chosen).tensors}
    collected = ranges.known(calibration, params.calibration.method).of(quantized, sorted(tensors))
    known = {tensors[name]: span for name, span in collected.items()}
    calibrated = [node for node in chosen if set(qdq.quantized_by(node)) <= set(known)]
    for node in chosen:
        if node not in calibrated:
            outcomes[node.name or ""] = kept(
                "its activations are not float32, or held no finite value on the calibration samples"
            )
    placement = qdq.place(graph, calibrated, allowed=set(known))
    scales = {value: _activation_scale(known[value], params.activation_type) for value in placement.tensors.values()}
    stored = {value: _store_scale(rewriter, value, *scales[value]) for value in sorted(scales, key=name_of)}
    inputs = {node.name or "": scales[placement.tensors[_activation(node)]] for node in calibrated}
    qdq.rewrite(graph, placement, stored, rewriter.names)
    rewrites = {
        name: (_rewrite(float(scale), version >= AXIS_OPSET), named[name]) for name, (scale, _) in inputs.items()
    }
    return quantized, outcomes | rewriter.rewrite(rewrites)


def _activation(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _unfit(rewriter: Rewriter, assignments: Sequence[Assignment]) -> dict[str, NodeOutcome]:
    """Outcomes of the nodes that have no INT8 form."""
    by_name = {node.name: node for node in rewriter.model.graph}
    outcomes = {}
    for assigned in assignments:
        if assigned.node.graph:
            outcomes[assigned.name] = kept(
                f"it is in the subgraph {assigned.node.graph}, which static cannot calibrate; "
                "quantize.method dynamic quantizes it"
            )
            continue
        try:
            site = Site(rewriter, by_name[assigned.name], assigned.params)
            _weight_of(site)
            _bias_of(site)
        except KeepFloatError as error:
            outcomes[assigned.name] = kept(str(error))
    return outcomes


def _rewrite(input_scale: float, axes_allowed: bool) -> Rewrite:
    """A rewrite that puts the weight and the bias of a node behind DequantizeLinear; its input is quantized already."""

    def rewrite(site: Site) -> str:
        weight, axis = _weight_of(site)
        kind = site.params.weight_type
        # Unsigned weights would need a zero point per channel, but INT8 kernels take only one.
        by_channel = site.params.per_channel and axes_allowed and kind == "QInt8" and axis is not None
        axes = (axis,) if by_channel and axis is not None else ()
        bias = _bias_of(site)
        min_scale = 0.0 if bias is None else _min_scale(weight.values, axes, bias.values, input_scale)
        summed = _summed(site.node, weight.values)
        pairs = not saturation.is_depthwise(site.node, weight.values)
        quantized = site.quantized(weight, kind, axes, summed=summed, pairs=pairs, min_scale=min_scale)
        inputs = [site.input(0), _dequantized(site, weight, "int8", quantized, axis if by_channel else None)]
        if bias is not None:
            integers = _integer_bias(bias.values, quantized, input_scale)
            site.record_loss(bias.values, integers.dequantized())
            inputs.append(_dequantized(site, bias, "int32", integers, 0 if by_channel else None))
        site.keep(inputs)
        return f"{kind} per {'channel' if by_channel else 'tensor'}, activations {site.params.activation_type}"

    return rewrite


def _weight_of(site: Site) -> tuple[Constant, int | None]:
    """The weight of a node and its axis of output channels; None for stacked matrices, which have several."""
    weight = site.right_weight()
    if site.node.op_type == "Conv":
        return weight, 0
    if weight.values.ndim < 2:
        raise KeepFloatError("its weight has one dimension; INT8 kernels need two")
    if site.node.op_type == "Gemm":
        return weight, 0 if number(site.node, "transB", 0) else 1
    return weight, 1 if weight.values.ndim == 2 else None


def _summed(node: ir.Node, weight: np.ndarray) -> portable.Summed:
    """What the kernel of a node sums its weight along, see `portable.Summed`."""
    if node.op_type == "Conv":
        return "positions"
    return weight.ndim - 1 if node.op_type == "Gemm" and number(node, "transB", 0) else weight.ndim - 2


def _bias_of(site: Site) -> Constant | None:
    """The bias of a Conv or Gemm, one value per channel; None if the node has no bias."""
    if site.node.op_type == "MatMul" or site.input(2) is None:
        return None
    bias, (weight, axis) = site.constant(2), _weight_of(site)
    if bias is None:
        raise KeepFloatError("its bias is computed while the model runs; INT8 kernels take a constant bias")
    channels = weight.values.shape[axis or 0]
    if bias.values.size != channels or (bias.values.ndim > 1 and bias.values.shape[-1] != channels):
        raise KeepFloatError(
            f"its bias has shape {list(bias.values.shape)}; INT8 kernels take one value per channel, here {channels}"
        )
    return Constant(bias.name, bias.values.reshape(-1))


def _min_scale(weight: np.ndarray, axes: tuple[int, ...], bias: np.ndarray, input_scale: float) -> np.ndarray:
    """The smallest weight scales with which the bias fits into 32 bits, of the shape of the scales."""
    needed = (np.abs(bias) / (_BIAS_LIMIT * input_scale)).astype(np.float32)
    shape = [weight.shape[axis] if axis in axes else 1 for axis in range(weight.ndim)]
    return np.broadcast_to(needed if axes else needed.max(initial=0), int(np.prod(shape))).reshape(shape)


def _integer_bias(bias: np.ndarray, weight: Quantized, input_scale: float) -> Quantized:
    """The bias in the unit of the sum it is added to: scale = input scale * weight scale, zero point 0."""
    scale = (weight.scale * np.float32(input_scale)).reshape(-1)
    return Quantized(np.rint(bias / scale.astype(np.float64)).astype(np.int32), scale, np.zeros(scale.shape, np.int32))


def _dequantized(site: Site, constant: Constant, suffix: str, quantized: Quantized, axis: int | None) -> ir.Value:
    """Store a quantized constant, and emit its DequantizeLinear."""
    shape = () if axis is None else (-1,)
    inputs = [
        site.store(constant, suffix, quantized.values),
        site.store(constant, f"{suffix}_scale", quantized.scale.reshape(shape)),
    ]
    if quantized.values.dtype != np.int32:  # a bias has no zero point
        inputs.append(site.store(constant, f"{suffix}_zero", quantized.zero_point.reshape(shape)))
    output = f"{constant.name}_dequantized"
    if axis is None:
        return site.emit("DequantizeLinear", inputs, output)
    return site.emit("DequantizeLinear", inputs, output, axis=axis)


def _activation_scale(span: ranges.Range, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of a range, extended to contain 0: zero_point = round(lowest level - low / scale)."""
    dtype, lowest, highest = _LEVELS[kind]
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    scale = (high - low) / (highest - lowest)
    if scale < np.finfo(np.float32).tiny:
        scale = 1.0
    return np.array(scale, np.float32), np.array(round(lowest - low / scale), dtype)


def _store_scale(rewriter: Rewriter, value: ir.Value, scale: np.ndarray, zero_point: np.ndarray) -> qdq.Scale:
    return qdq.Scale(
        rewriter.store(f"{value.name}_scale", scale), rewriter.store(f"{value.name}_zero_point", zero_point)
    )
