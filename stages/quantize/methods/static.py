"""Static quantization: weights and activations INT8, the ranges of activations found beforehand on samples.

The file holds QuantizeLinear and DequantizeLinear pairs (QDQ) around float operators, as ONNX Runtime's
`quantize_static` writes them, and ONNX Runtime fuses them into INT8 kernels at load. They are written here, node by
node, rather than by that function: it fails on a whole graph for one Gemm with a two-dimensional bias or one
scikit-learn operator, keeps every activation in memory, and works on several copies of the model.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from stages.common.base.errors import ParamsError
from stages.common.base.params import Quantize
from stages.quantize import graphs, qdq, ranges
from stages.quantize.decision import Decision, kept
from stages.quantize.fusing import fold_scales, join_bias, pool_last
from stages.quantize.inventory import WeightedNode
from stages.quantize.linear import Quantized
from stages.quantize.methods import Calibration
from stages.quantize.methods.rewriter import Constant, KeepFloatError, Rewriter, Rule, Site

OP_TYPES = BY_DEFAULT = frozenset({"Conv", "Gemm", "MatMul"})
WHY_NOT: Mapping[str, str] = MappingProxyType({})

OPSET = 10
"""QuantizeLinear came with it."""

CHANNEL_OPSET = 13
"""QuantizeLinear along an axis came with it."""

_BIAS_LIMIT = 2.0**30
"""A bias is held in 32 bits, in steps of input scale times weight scale; this leaves room for the sum it joins."""

_LEVELS = {"QUInt8": (np.uint8, 0, 255), "QInt8": (np.int8, -128, 127)}


def quantize(
    model: ModelProto, nodes: Sequence[WeightedNode], params: Quantize, calibration: Calibration
) -> tuple[ModelProto, dict[str, Decision]]:
    """Quantize `nodes`; see `Method`.

    Raises:
        ParamsError: the weight type has 4 bits.
        StageError: the model does not run on the calibration samples.
    """
    if params.weight_type not in _LEVELS:
        raise ParamsError(
            f"quantize.weight_type is {params.weight_type}, which is for quantize.method weight_only; "
            "static takes QInt8 or QUInt8."
        )
    version = graphs.opset(model) or 0
    if version < OPSET:
        reason = (
            f"needs opset {OPSET}, the model has {version} and cannot be converted; export it with opset 13 or later"
        )
        return model, {node.name: kept(reason) for node in nodes}
    quantized = graphs.copy(model)
    named = {node.name for node in nodes}
    fold_scales(quantized, named)
    join_bias(quantized, named)
    pool_last(quantized)
    rewriter = Rewriter(quantized, params)
    flow = qdq.Flow(quantized.graph)
    decisions = _unfit(rewriter, nodes)
    chosen = {at for at, node in enumerate(flow.nodes) if node.name in named - set(decisions)}
    if not chosen:
        return model, decisions
    found = ranges.collect(quantized, sorted(flow.plan(chosen).tensors), calibration, params.calibration.method)
    blind = {at for at in chosen if not set(flow.quantized_by(at)) <= set(found)}
    for at in blind:
        decisions[flow.nodes[at].name] = kept(
            "its activations are not float32, or held no finite value on the calibration samples"
        )
    plan = flow.plan(chosen - blind, allowed=set(found))
    scales = {name: _activation_scale(found[name], params.activation_type) for name in set(plan.tensors.values())}
    names = {name: _store_scale(rewriter, name, *scales[name]) for name in sorted(scales)}
    inputs = {flow.nodes[at].name: float(scales[plan.tensors[flow.nodes[at].input[0]]][0]) for at in chosen - blind}
    qdq.rewrite(quantized.graph, plan, names, rewriter.names)
    rules = {name: _rule(scale, version >= CHANNEL_OPSET) for name, scale in inputs.items()}
    return quantized, decisions | rewriter.rewrite(rules)


def _unfit(rewriter: Rewriter, nodes: Sequence[WeightedNode]) -> dict[str, Decision]:
    """The nodes that have no INT8 form, before anything is changed for them."""
    main = graphs.scopes(rewriter.model)[0]
    by_name = {node.name: node for node in main.graph.node}
    decisions = {}
    for node in nodes:
        if node.graph:
            decisions[node.name] = kept(
                f"it stands in the subgraph {node.graph}, which calibration does not see into; "
                "quantize.method dynamic quantizes it"
            )
            continue
        try:
            site = Site(rewriter, main, by_name[node.name])
            _weight_of(site)
            _bias_of(site)
        except KeepFloatError as error:
            decisions[node.name] = kept(str(error))
    return decisions


def _rule(input_scale: float, axes_allowed: bool) -> Rule:
    """Put the weight and the bias of a node behind DequantizeLinear; its input is quantized already."""

    def rule(site: Site) -> str:
        weight, axis = _weight_of(site)
        kind = site.params.weight_type
        # Unsigned weights have a zero point for each channel, and INT8 kernels take one for all.
        by_channel = site.params.per_channel and axes_allowed and kind == "QInt8" and axis is not None
        quantized = site.quantized(weight, kind, (axis,) if by_channel and axis is not None else ())
        bias = _bias_of(site)
        if bias is not None:
            quantized = _for_bias(weight.values, quantized, bias.values, input_scale)
        node = NodeProto()
        node.CopyFrom(site.node)
        node.input[1] = _dequantized(site, weight, "int8", quantized, axis if by_channel else None)
        if bias is not None:
            integers = _integer_bias(bias.values, quantized, input_scale)
            site.replace_weight(bias, integers.dequantized())
            node.input[2] = _dequantized(site, bias, "int32", integers, 0 if by_channel else None)
        site.nodes.append(node)
        return f"{kind} per {'channel' if by_channel else 'tensor'}, activations {site.params.activation_type}"

    return rule


def _weight_of(site: Site) -> tuple[Constant, int | None]:
    """The weight of a node and its axis of output channels; None for a stack of matrices, which has no single one."""
    if site.constant(1) is None and site.constant(0) is not None:
        raise KeepFloatError("its constant is on the left; INT8 kernels take it on the right only")
    weight = site.weight(1)
    if site.node.op_type == "Conv":
        return weight, 0
    if weight.values.ndim < 2:
        raise KeepFloatError("its weight has one dimension; INT8 kernels need two")
    if site.node.op_type == "Gemm":
        return weight, 0 if graphs.attribute(site.node, "transB", 0) else 1
    return weight, 1 if weight.values.ndim == 2 else None


def _bias_of(site: Site) -> Constant | None:
    """The bias of a Conv or Gemm as a vector of one value a channel, or None where it has none."""
    if site.node.op_type == "MatMul" or not site.input(2):
        return None
    bias, (weight, axis) = site.constant(2), _weight_of(site)
    if bias is None:
        raise KeepFloatError("its bias is computed while the model runs; INT8 kernels take a constant one")
    channels = weight.values.shape[axis or 0]
    if bias.values.size != channels or (bias.values.ndim > 1 and bias.values.shape[-1] != channels):
        raise KeepFloatError(
            f"its bias has shape {list(bias.values.shape)}; INT8 kernels take one value for each of {channels} channels"
        )
    return Constant(bias.name, bias.values.reshape(-1))


def _for_bias(weight: np.ndarray, quantized: Quantized, bias: np.ndarray, input_scale: float) -> Quantized:
    """Coarser weights where they are so small beside the bias that it would not fit into 32 bits."""
    needed = np.abs(bias) / (_BIAS_LIMIT * input_scale)
    needed = needed.reshape(quantized.scale.shape) if quantized.scale.size == bias.size else needed.max(initial=0)
    if np.all(quantized.scale >= needed):
        return quantized
    scale = np.maximum(quantized.scale, needed).astype(np.float32)
    limits = np.iinfo(quantized.values.dtype)
    low = np.minimum(weight.min(), 0)
    zero_point = quantized.zero_point if limits.min else np.rint(-low / scale).astype(np.uint8)
    values = np.clip(np.rint(weight / scale) + zero_point, limits.min, limits.max).astype(quantized.values.dtype)
    return Quantized(values, scale, zero_point)


def _integer_bias(bias: np.ndarray, weight: Quantized, input_scale: float) -> Quantized:
    """In the unit of the sum that it joins: scale = input scale * weight scale, zero point 0."""
    scale = (weight.scale * np.float32(input_scale)).reshape(-1)
    return Quantized(np.rint(bias / scale.astype(np.float64)).astype(np.int32), scale, np.zeros(scale.shape, np.int32))


def _dequantized(site: Site, constant: Constant, suffix: str, quantized: Quantized, axis: int | None) -> str:
    """Store a quantized constant, and emit what turns it into floats again."""
    shape = () if axis is None else (-1,)
    inputs = [
        site.store(constant, suffix, quantized.values),
        site.store(constant, f"{suffix}_scale", quantized.scale.reshape(shape)),
    ]
    if quantized.values.dtype != np.int32:  # a bias has no zero point, and gains nothing from one
        inputs.append(site.store(constant, f"{suffix}_zero", quantized.zero_point.reshape(shape)))
    output = f"{constant.name}_dequantized"
    if axis is None:
        return site.emit("DequantizeLinear", inputs, output)
    return site.emit("DequantizeLinear", inputs, output, axis=axis)


def _activation_scale(found: ranges.Range, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point that cover a range and 0: zero_point = lowest level - low / scale, rounded."""
    dtype, lowest, highest = _LEVELS[kind]
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    scale = (high - low) / (highest - lowest)
    if scale < np.finfo(np.float32).tiny:
        scale = 1.0
    return np.array(scale, np.float32), np.array(round(lowest - low / scale), dtype)


def _store_scale(rewriter: Rewriter, name: str, scale: np.ndarray, zero_point: np.ndarray) -> qdq.Scale:
    names = qdq.Scale(rewriter.names.fresh(f"{name}_scale"), rewriter.names.fresh(f"{name}_zero_point"))
    stored = ((names.scale, scale), (names.zero_point, zero_point))
    rewriter.model.graph.initializer.extend(numpy_helper.from_array(values, label) for label, values in stored)
    return names
