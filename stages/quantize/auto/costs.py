"""What kernels and conversions cost on this machine: each is timed as a model of its own, all in turn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx_ir as ir

from stages.common.base.params import Quantize
from stages.common.graph.walk import add_initializer
from stages.common.graph.weights import weighted_nodes
from stages.common.model import sessions
from stages.quantize.auto.choices import BLOCKED, DYNAMIC, KEPT, ROW, SMOOTH, SMOOTH_ROW, STATIC, STORED, forms, kernel
from stages.quantize.auto.mix import mixed
from stages.quantize.auto.probe import Probed
from stages.quantize.auto.timing import LARGE_BYTES, Call, call, in_turn, one_by_one, quiet_us
from stages.quantize.methods import Assignment

SECONDS_EACH = 0.1
"""Seconds to time each kernel."""

SECONDS_ALL = 5.0
"""Most seconds for all kernels."""

_ROW = 384
_CHANNELS = 32


@dataclass(frozen=True)
class Line:
    """Microseconds as a linear function of the number of values."""

    fixed: float
    per_value: float

    def us(self, values: int) -> float:
        """The time for this many values, never below zero."""
        return max(0.0, self.fixed + self.per_value * values)

    def __add__(self, other: "Line") -> "Line":
        """The cost of both."""
        return Line(self.fixed + other.fixed, self.per_value + other.per_value)


@dataclass(frozen=True)
class Conversions:
    """The cost of converting a tensor into a form and back into floats, for images (rank 3 or more) and for others."""

    image: Mapping[str, tuple[Line, Line]]
    plain: Mapping[str, tuple[Line, Line]]

    def price(self, shape: Sequence[int]) -> tuple[dict[str, float], dict[str, float]]:
        """Microseconds into each form, and back, for a tensor of this shape."""
        lines = self.image if len(shape) >= 3 and self.image else self.plain
        values = int(np.prod(shape, dtype=np.int64))
        into = {form: line.us(values) for form, (line, _) in lines.items()}
        return into, {form: line.us(values) for form, (_, line) in lines.items()}


def kernel_us(
    probed: Mapping[str, Probed], op_types: Mapping[str, str], conversions: Conversions, threads: int
) -> dict[tuple[str, str], float]:
    """Microseconds of each node's kernel with each choice, including float, without conversions.

    The nodes run in order, all with one choice, then all with the next: alone, a small model would find its weights in
    the cache in every call. Nodes with equal operator, attributes and shapes get the median of their times. A node
    unlike all others is timed in two sessions, as two sessions of one file differ by a percent or two. If the weights
    are large, only one of equal nodes is timed, in one session. The time of an (almost) empty call is subtracted,
    because a whole model pays it once.

    Args:
        probed: nodes by name.
        op_types: their operator types by name.
        conversions: the conversions to subtract: a model of one node has them on both sides.
        threads: number of intra-op threads.

    Returns:
        Microseconds by node and choice.
    """
    choices = dict.fromkeys([KEPT, *(choice for node in probed.values() for choice in node.models if choice != STORED)])
    large = sum(node.weight_bytes for node in probed.values()) > LARGE_BYTES
    alike = Counter(node.single.key for node in probed.values())
    cases: list[tuple[str, str]] = []
    calls: list[Call] = []
    for choice, name in product(choices, probed):
        node = probed[name]
        case = (node.single.key, choice)
        if large and case in cases:
            continue
        model = node.models.get(choice, node.single.model)
        for _ in range(1 if large or alike[node.single.key] > 1 else 2):
            session = sessions.open_session(model, threads, name="a single node")
            cases.append(case)
            calls.append(call(session, node.single.feeds[0]))
    calls.append(_open(_single("Identity"), 1, threads, "Identity"))
    *us, empty = quiet_us(one_by_one(calls, min(SECONDS_ALL, SECONDS_EACH * len(calls))))
    times: dict[tuple[str, str], list[float]] = {}
    for case, took in zip(cases, us, strict=True):
        times.setdefault(case, []).append(float(took - empty))
    timed = {case: float(np.median(measured)) for case, measured in times.items()}
    costs = {}
    for name, node in probed.items():
        for choice in (KEPT, *node.models):
            borders = _own_borders(node, op_types[name], kernel(choice), conversions)
            costs[name, choice] = max(0.0, timed[node.single.key, kernel(choice)] - borders)
    return costs


def _own_borders(node: Probed, op_type: str, choice: str, conversions: Conversions) -> float:
    read, given = (next(iter(node.single.feeds[0].values())).shape, node.single.outputs[0].shape)
    takes, gives = forms(op_type, choice)
    return conversions.price(read)[0].get(takes, 0.0) + conversions.price(given)[1].get(gives, 0.0)


def _timed(calls: Sequence[Call]) -> list[float]:
    if not calls:
        return []
    seconds = min(SECONDS_ALL, SECONDS_EACH * len(calls))
    return [float(us) for us in quiet_us(in_turn(calls, seconds))]


def measure_conversions(params: Quantize, threads: int, images: bool) -> Conversions:
    """Time the conversions between forms, at two sizes each.

    Layout changes happen inside kernels, and rows are quantized by several operators, so neither can be timed alone.
    But one convolution (or product) takes t1 = kernel + conversions, and two that share the conversions take
    t2 = 2 kernels + conversions, so conversions take 2 t1 - t2.
    """
    plain = {DYNAMIC: "DynamicQuantizeLinear", STATIC: "QuantizeLinear", "back": "DequantizeLinear"}
    plain |= {"times": "Mul", "": "Identity"}
    sizes = (8 * _ROW, 128 * _ROW)
    calls = [_open(_single(op_type), size // _ROW, threads, op_type) for op_type in plain.values() for size in sizes]
    for size in sizes:
        calls += [_open_repeated(_products(n), ROW, (size // _ROW, _ROW), params, threads) for n in (1, 2)]
    sides = (12, 48) if images else ()
    for choice in (KEPT, STATIC):
        for side in sides:
            shape = (1, _CHANNELS, side, side)
            calls += [_open_repeated(_convolutions(n, side), choice, shape, params, threads) for n in (1, 2)]
    times = np.array(_timed(calls))
    by_form = dict(zip(plain, times[: len(plain) * 2].reshape(-1, 2), strict=True))
    lines = {form: _line(sizes, by_form[form] - by_form[""]) for form in plain if form}
    floor, free = by_form[""][0], Line(0.0, 0.0)
    repeated = times[len(plain) * 2 :].reshape(-1, 2, 2)  # what is repeated, size, once or twice
    both = np.maximum(0.0, 2 * repeated[..., 0] - repeated[..., 1] - floor)
    flat = {
        STATIC: (lines[STATIC], lines["back"]),
        DYNAMIC: (lines[DYNAMIC], free),
        ROW: (_line(sizes, both[0]), free),
    }
    flat |= {SMOOTH: (flat[DYNAMIC][0] + lines["times"], free), SMOOTH_ROW: (flat[ROW][0] + lines["times"], free)}
    if not images:
        return Conversions({}, flat)
    values = tuple(_CHANNELS * side * side for side in sides)
    image = dict(flat)
    for form, microseconds in zip((BLOCKED, STATIC), both[1:], strict=True):
        half = _line(values, microseconds / 2)
        image[form] = (half, half)
    return Conversions(image, {**flat, BLOCKED: (free, free)})


def _line(sizes: tuple[int, ...], times: np.ndarray) -> Line:
    per_value = max(0.0, float(times[1] - times[0]) / (sizes[1] - sizes[0]))
    return Line(max(0.0, float(times[0]) - per_value * sizes[0]), per_value)


def _single(op_type: str) -> ir.Model:
    """A model of one conversion operator on rows of `_ROW` values."""
    kind = ir.DataType.UINT8 if op_type == "DequantizeLinear" else ir.DataType.FLOAT
    read = ir.Value(name="x", shape=ir.Shape([None, _ROW]), type=ir.TensorType(kind))
    graph = ir.Graph([read], [], nodes=[], name="conversion", opset_imports={"": 13})
    inputs = [read]
    if op_type in ("QuantizeLinear", "DequantizeLinear"):
        inputs.append(add_initializer(graph, "scale", np.array(0.02, np.float32)))
        inputs.append(add_initializer(graph, "zero", np.array(128, np.uint8)))
    if op_type == "Mul":
        inputs.append(add_initializer(graph, "factor", np.full(_ROW, 2, np.float32)))
    node = ir.Node("", op_type, inputs, num_outputs=3 if op_type == "DynamicQuantizeLinear" else 1)
    graph.append(node)
    for number, output in enumerate(node.outputs):
        output.name = f"y{number}"
        output.type = ir.TensorType(_types(op_type)[number])
        output.shape = ir.Shape([None, _ROW]) if number == 0 else ir.Shape([])
        graph.outputs.append(output)
    return ir.Model(graph, ir_version=8)


def _types(op_type: str) -> tuple[ir.DataType, ...]:
    if op_type == "DynamicQuantizeLinear":
        return ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8
    return (ir.DataType.UINT8,) if op_type == "QuantizeLinear" else (ir.DataType.FLOAT,)


def _open(model: ir.Model, rows: int, threads: int, op_type: str) -> Call:
    values = np.random.default_rng(0).standard_normal((rows, _ROW)).astype(np.float32)
    feed = {"x": (values * 30 + 128).astype(np.uint8) if op_type == "DequantizeLinear" else values}
    return call(sessions.open_session(model, threads, name="a conversion"), feed)


def _products(count: int) -> ir.Model:
    """A model of `count` MatMul nodes with a common input."""
    read = ir.Value(name="x", shape=ir.Shape([None, _ROW]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([read], [], nodes=[], name="products", opset_imports={"": 13})
    for number in range(count):
        weight = np.random.default_rng(number).standard_normal((_ROW, _CHANNELS)).astype(np.float32)
        value = _append(graph, "MatMul", read, weight, [None, _CHANNELS])
        graph.outputs.append(value)
    return ir.Model(graph, ir_version=8)


def _convolutions(count: int, side: int) -> ir.Model:
    """A model of `count` Conv nodes in a row."""
    shape = [1, _CHANNELS, side, side]
    value = read = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([read], [], nodes=[], name="convolutions", opset_imports={"": 13})
    for number in range(count):
        random = np.random.default_rng(number)
        weight = random.standard_normal((_CHANNELS, _CHANNELS, 1, 1)).astype(np.float32) / _CHANNELS
        value = _append(graph, "Conv", value, weight, shape)
    graph.outputs.append(value)
    return ir.Model(graph, ir_version=8)


def _append(graph: ir.Graph, op_type: str, read: ir.Value, weight: np.ndarray, shape: Sequence[int | None]) -> ir.Value:
    number = len(graph)
    node = ir.Node("", op_type, [read, add_initializer(graph, f"w{number}", weight)], name=f"node{number}")
    graph.append(node)
    output: ir.Value = node.outputs[0]
    output.name, output.type, output.shape = f"y{number}", ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    return output


def _open_repeated(model: ir.Model, choice: str, shape: tuple[int, ...], params: Quantize, threads: int) -> Call:
    feed = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    if choice != KEPT:
        nodes = [Assignment(node, params) for node in weighted_nodes(model)]
        model, _ = mixed(model, nodes, {node.name: choice for node in nodes}, lambda: iter([feed]))
    return call(sessions.open_session(model, threads, name="repeated operators"), feed)
