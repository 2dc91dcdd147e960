"""Correct the output channels of static operators: fit each one to the float model's by scale and bias.

Rounding a weight changes the mean and the spread of a channel. With y' the output of the quantized operator and y that
of the float operator, the least-squares fit a y' + b of y has

    a = cov(y', y) / var(y'),    b = mean(y) - a mean(y').

The scales of the weight absorb a and the bias absorbs b, so the correction is free at run time. (Nagel et al., ICCV
2019, correct only the mean.) One half of the samples is fitted; on the other half each channel takes the best of a and
b, b alone, or no correction. Operators are corrected in order, because each one changes the inputs of those after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx_ir as ir

from stages.common.graph.names import Names
from stages.common.graph.walk import add_initializer, constant, input_of, name_of, number, remove_unused, subgraphs
from stages.common.model import sessions
from stages.common.model.sessions import Feed

FEEDS = 64
"""Most feeds to use."""

BYTES = 256 << 20
"""Most bytes of operator outputs to keep in memory; larger outputs mean fewer feeds."""

GAIN = 0.9
"""A correction is kept if it lowers the noise on the held-out samples to at most this share."""

_LARGEST = 2.0**30
"""The largest magnitude of a bias, which has 32 bits."""


@dataclass(frozen=True)
class Correction:
    """What the output of an operator is multiplied by and what is added to it, each float32 [channels]."""

    factor: np.ndarray
    shift: np.ndarray

    def as_json(self) -> dict[str, list[float]]:
        """Both as lists, of the shortest decimals that give the same float32 numbers."""
        return {"factor": [float(str(x)) for x in self.factor], "shift": [float(str(x)) for x in self.shift]}

    @classmethod
    def from_json(cls, numbers: Mapping[str, Sequence[float]]) -> "Correction":
        """Read what `as_json` returned."""
        return cls(np.array(numbers["factor"], np.float32), np.array(numbers["shift"], np.float32))


def corrected(quantized: ir.Model, floats: ir.Model, feeds: Iterator[Feed]) -> tuple[ir.Model, dict[str, Correction]]:
    """Correct the static Conv and Gemm nodes of a model if that brings its outputs closer to the float model.

    Args:
        quantized: the quantized model; not changed.
        floats: the float model that it was made from; values with the same name correspond.
        feeds: calibration samples.

    Returns:
        The model, and corrections by node name; no corrections if the outputs of the model gain nothing.

    Raises:
        StageError: a model does not run.
    """
    known = {name_of(value) for node in floats.graph for value in node.outputs}
    wanted = [name_of(node.outputs[0]) for node in quantized.graph if _correctable(node)]
    wanted = [name for name in wanted if name in known]
    used = list(islice(feeds, FEEDS)) if wanted else []
    if len(used) < 2:
        return quantized, {}
    first = _observed(floats, wanted, used[:1])[0]
    used = used[: BYTES // max(1, sum(array.nbytes for array in first.values()))]
    if len(used) < 2:
        return quantized, {}
    expected = _observed(floats, wanted, used)
    model = quantized.clone()
    nodes = [node for node in model.graph if _correctable(node) and name_of(node.outputs[0]) in known]
    seen: list[dict[str, np.ndarray]] = [dict(feed) for feed in used]
    corrections = {}
    for node, name in zip(nodes, wanted, strict=True):
        arrays = _segment(model, node, seen)
        if arrays is None:
            continue
        pairs = [(_channels(array), _channels(target[name])) for array, target in zip(arrays, expected, strict=True)]
        correction = fit(pairs[::2], pairs[1::2])
        apply(model, {node.name or "": correction})
        shape = (1, -1, *(1,) * (arrays[0].ndim - 2))
        for known_values, array in zip(seen, arrays, strict=True):
            known_values[name] = array * correction.factor.reshape(shape) + correction.shift.reshape(shape)
        corrections[node.name or ""] = correction
    result, held = quantized.clone(), used[1::2]
    apply(result, corrections)
    answers = [_answers(model, held) for model in (floats, quantized, result)]
    before, after = (_noise(answers[0], other) for other in answers[1:])
    return (result, corrections) if after < GAIN * before else (quantized, {})


def fit(fitted: Sequence[tuple[np.ndarray, np.ndarray]], held: Sequence[tuple[np.ndarray, np.ndarray]]) -> Correction:
    """Fit the channels of an operator's output, and keep what helps on held-out feeds.

    Args:
        fitted: for each feed the quantized and the float output, both [channels, values].
        held: the same for the held-out feeds.
    """
    quantized, target = (np.concatenate(side, axis=1).astype(np.float64) for side in zip(*fitted, strict=True))
    mean, target_mean = quantized.mean(axis=1), target.mean(axis=1)
    centred = quantized - mean[:, None]
    variance = np.square(centred).mean(axis=1)
    slope = np.ones(len(quantized))
    np.divide((centred * (target - target_mean[:, None])).mean(axis=1), variance, out=slope, where=variance > 0)
    slope = slope.clip(0.5, 2)
    ones, zeros = np.ones(len(quantized)), np.zeros(len(quantized))
    choices = [(ones, zeros), (ones, target_mean - mean), (slope, target_mean - slope * mean)]
    quantized, target = (np.concatenate(side, axis=1).astype(np.float64) for side in zip(*held, strict=True))
    errors = [np.square(factor[:, None] * quantized + shift[:, None] - target).sum(axis=1) for factor, shift in choices]
    best = np.argmin([GAIN * errors[0], *errors[1:]], axis=0)
    factor, shift = (np.choose(best, [choice[side] for choice in choices]) for side in (0, 1))
    return Correction(factor.astype(np.float32), shift.astype(np.float32))


def apply(model: ir.Model, corrections: Mapping[str, Correction]) -> None:
    """Write corrections into the scales and biases of static Conv and Gemm nodes, in place."""
    names = Names(model)
    for node in [node for node in model.graph if node.name in corrections and _correctable(node)]:
        correction = corrections[node.name or ""]
        weight = _dequantizer(node, 1)
        activation = _dequantizer(node, 0)
        assert weight is not None and activation is not None
        scale = (_array(weight, 1) * correction.factor).astype(np.float32)
        unit = scale * _array(activation, 1)
        bias = _dequantizer(node, 2)
        old = _array(bias, 0).astype(np.float64) * _array(bias, 1) if bias is not None else 0.0
        steps = np.rint((correction.factor * old + correction.shift) / unit.astype(np.float64))
        steps = steps.clip(-_LARGEST, _LARGEST).astype(np.int32)
        stem = f"{node.name}_corrected"
        weight.replace_input_with(1, add_initializer(model.graph, names.fresh(f"{stem}_scale"), scale))
        stored = [
            add_initializer(model.graph, names.fresh(f"{stem}_bias{suffix}"), values)
            for suffix, values in (("", steps), ("_scale", unit))
        ]
        name = names.fresh(f"{stem}_bias_DequantizeLinear")
        floats = ir.node("DequantizeLinear", stored, {"axis": 0}, name=name)
        floats.outputs[0].name = names.fresh(f"{stem}_bias_dequantized")
        model.graph.insert_before(node, floats)
        node.resize_inputs(3)
        node.replace_input_with(2, floats.outputs[0])
    remove_unused(model)


def _correctable(node: ir.Node) -> bool:
    """Whether a node is a static Conv or Gemm with a scale per channel, and a constant bias or none."""
    if (
        node.op_type not in ("Conv", "Gemm")
        or node.domain
        or number(node, "alpha", 1) != 1
        or number(node, "beta", 1) != 1
    ):
        return False
    weight, activation = _dequantizer(node, 1), _dequantizer(node, 0)
    if weight is None or activation is None or constant(weight.inputs[0]) is None or _array(weight, 1).ndim != 1:
        return False
    return input_of(node, 2) is None or _dequantizer(node, 2) is not None


def _dequantizer(node: ir.Node, index: int) -> ir.Node | None:
    value = input_of(node, index)
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _array(node: ir.Node, index: int) -> np.ndarray:
    tensor = constant(node.inputs[index])
    assert tensor is not None
    return np.asarray(tensor.numpy())


def _channels(array: np.ndarray) -> np.ndarray:
    """Reshape [batch, channels, ...] to [channels, values]."""
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)


def _segment(model: ir.Model, node: ir.Node, seen: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray] | None:
    """The output of a node for each feed, computed from the known values; None if that is impossible."""
    needed: dict[ir.Value, None] = {}
    visited, waiting = set(), [node.outputs[0]]
    while waiting:
        value = waiting.pop()
        if value in visited or value.is_initializer():
            continue
        visited.add(value)
        producer = value.producer()
        if name_of(value) in seen[0]:
            needed[value] = None
            continue
        if producer is None or next(subgraphs(producer), None) is not None:
            return None
        waiting += [value for value in producer.inputs if value is not None]
    for value in needed:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.from_numpy(seen[0][name_of(value)].dtype))
    output = node.outputs[0]
    output.type = output.type or ir.TensorType(ir.DataType.FLOAT)
    graph = ir.convenience.extract(model.graph, sorted(needed, key=name_of), [output])
    session = sessions.open_session(ir.Model(graph, ir_version=model.ir_version), name="a part of the quantized model")
    names = [name_of(value) for value in needed]
    feeds = ({name: arrays[name] for name in names} for arrays in seen)
    return [np.asarray(sessions.run(session, feed, name="the quantized model")[0]) for feed in feeds]


def _observed(model: ir.Model, names: Sequence[str], feeds: Sequence[Feed]) -> list[dict[str, np.ndarray]]:
    watched = model.clone()
    values = {value.name: value for node in watched.graph for value in node.outputs}
    watched.graph.outputs.extend(values[name] for name in names if not values[name].is_graph_output())
    session = sessions.open_session(watched, name="the model with its activations as outputs")
    return [dict(zip(names, sessions.run(session, feed, names, name="the float model"), strict=True)) for feed in feeds]


def _answers(model: ir.Model, feeds: Sequence[Feed]) -> list[list[np.ndarray]]:
    session = sessions.open_session(model, name="a candidate")
    return [sessions.run(session, feed, name="a candidate") for feed in feeds]


def _noise(expected: Sequence[Sequence[np.ndarray]], answers: Sequence[Sequence[np.ndarray]]) -> float:
    """Noise power over signal power, summed over the float outputs."""
    total = 0.0
    for before, after in zip(zip(*expected, strict=True), zip(*answers, strict=True), strict=True):
        pairs = [
            (a, b) for a, b in zip(before, after, strict=True) if isinstance(a, np.ndarray) and a.dtype.kind == "f"
        ]
        same = [(a.astype(np.float64), b) for a, b in pairs if a.shape == b.shape and np.isfinite(a).all()]
        signal = sum(float(np.square(a).sum()) for a, _ in same)
        total += sum(float(np.square(b - a).sum()) for a, b in same) / signal if signal else 0.0
    return total
