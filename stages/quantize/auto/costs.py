"""What kernels and conversions cost on this machine: each distinct one timed as a model of its own, all in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from stages.common.base.params import Quantize
from stages.common.graph.walk import add_initializer
from stages.common.graph.weights import weighted_nodes
from stages.common.model import sessions
from stages.common.model.sessions import Feed
from stages.quantize.auto.choices import BLOCKED, KEPT, STATIC, forms
from stages.quantize.auto.mix import mixed
from stages.quantize.auto.probe import Probed
from stages.quantize.auto.timing import in_turn, one_by_one, quiet_us
from stages.quantize.methods.static.ranges import Known

SECONDS_EACH = 0.05
"""Timed for each kernel, and at most `SECONDS_ALL` for all of them."""

SECONDS_ALL = 8.0

LARGE_BYTES = 256 << 20
"""Weights above which nodes of equal shapes are timed once; below it all of them are, so that caches are as they are
while the whole model runs."""

DYNAMIC = "dynamic"

_ROW = 384
_CHANNELS = 32


@dataclass(frozen=True)
class Line:
    """Microseconds as a line over the number of values: what one call costs, and what each value adds."""

    fixed: float
    each: float

    def us(self, values: int) -> float:
        """For so many values; never below zero."""
        return max(0.0, self.fixed + self.each * values)


@dataclass(frozen=True)
class Conversions:
    """What converting a tensor into a form, and back into floats, costs; of images (rank 4) and of all else."""

    image: Mapping[str, tuple[Line, Line]]
    plain: Mapping[str, tuple[Line, Line]]

    def price(self, shape: Sequence[int]) -> tuple[dict[str, float], dict[str, float]]:
        """Into each form and back, in microseconds, for a tensor of this shape."""
        lines = self.image if len(shape) >= 3 and self.image else self.plain
        values = int(np.prod(shape, dtype=np.int64))
        into = {form: line.us(values) for form, (line, _) in lines.items()}
        return into, {form: line.us(values) for form, (_, line) in lines.items()}


Call = Callable[[], object]


def call(session: ort.InferenceSession, feed: Feed) -> Call:
    """One run of a session."""
    fed = dict(feed)
    return lambda: session.run(None, fed)


def kernel_us(
    probed: Mapping[str, Probed], op_types: Mapping[str, str], conversions: Conversions, threads: int
) -> dict[tuple[str, str], float]:
    """Microseconds of each node's kernel with each choice, float included, conversions excluded.

    The nodes run in order, all with one choice, then all with the next: a small model by itself would find its weights
    in the cache in every call, which it does not between the others. Nodes of equal operator, attributes and shapes
    cost the same, the median of them.

    Args:
        probed: nodes by name.
        op_types: of them.
        conversions: to subtract: a model of one node has a border on both sides.
        threads: intra-op.

    Returns:
        By node and choice.
    """
    choices = dict.fromkeys([KEPT, *(choice for node in probed.values() for choice in node.models)])
    large = sum(node.weight_bytes for node in probed.values()) > LARGE_BYTES
    calls: dict[tuple[str, str], Call] = {}
    for choice in choices:
        for name, node in probed.items():
            model = node.models.get(choice, node.single.model)
            key = (node.single.key if large else name, choice)
            if key not in calls:
                session = sessions.open_session(model, threads, name="a node by itself")
                calls[key] = call(session, node.single.feeds[0])
    rounds = one_by_one(list(calls.values()), min(SECONDS_ALL, SECONDS_EACH * len(calls)))
    times: dict[tuple[str, str], list[float]] = {}
    for (name, choice), us in zip(calls, quiet_us(rounds), strict=True):
        times.setdefault((name if large else probed[name].single.key, choice), []).append(float(us))
    timed = {key: float(np.median(us)) for key, us in times.items()}
    costs = {}
    for name, node in probed.items():
        for choice in (KEPT, *node.models):
            borders = _own_borders(node, op_types[name], choice, conversions)
            costs[name, choice] = max(0.0, timed[node.single.key, choice] - borders)
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
    """Time the conversions between forms on two sizes each.

    Those of images cannot be timed by themselves: ONNX Runtime changes the layout inside. One convolution has both,
    two in a row have them once more, so that t1 - (t2 - t1) is the pair of conversions; each is half of it.
    """
    plain = {DYNAMIC: "DynamicQuantizeLinear", STATIC: "QuantizeLinear", "back": "DequantizeLinear", "": "Identity"}
    sizes = (8 * _ROW, 256 * _ROW)
    calls = [_open(_single(op_type), size // _ROW, threads, op_type) for op_type in plain.values() for size in sizes]
    sides = (12, 48) if images else ()
    for choice in (KEPT, "static"):
        for side in sides:
            calls += [_open_convolutions(count, side, choice, params, threads) for count in (1, 2)]
    times = np.array(_timed(calls))
    by_form = dict(zip(plain, times[: len(plain) * 2].reshape(-1, 2), strict=True))
    lines = {form: _line(sizes, by_form[form] - by_form[""]) for form in plain if form}
    flat = {STATIC: (lines[STATIC], lines["back"]), DYNAMIC: (lines[DYNAMIC], Line(0.0, 0.0))}
    if not images:
        return Conversions({}, flat)
    image = {}
    pairs = times[len(plain) * 2 :].reshape(2, 2, 2)  # choice, side, one or two convolutions
    values = tuple(_CHANNELS * side * side for side in sides)
    floor = by_form[""][0]
    for form, timed in zip((BLOCKED, STATIC), pairs, strict=True):
        both = np.maximum(0.0, 2 * timed[:, 0] - timed[:, 1] - floor)
        half = _line(values, both / 2)
        image[form] = (half, half)
    return Conversions({**flat, **image}, {**flat, BLOCKED: (Line(0.0, 0.0), Line(0.0, 0.0))})


def _line(sizes: tuple[int, ...], times: np.ndarray) -> Line:
    each = max(0.0, float(times[1] - times[0]) / (sizes[1] - sizes[0]))
    return Line(max(0.0, float(times[0]) - each * sizes[0]), each)


def _single(op_type: str) -> ir.Model:
    kind = ir.DataType.UINT8 if op_type == "DequantizeLinear" else ir.DataType.FLOAT
    read = ir.Value(name="x", shape=ir.Shape([None, _ROW]), type=ir.TensorType(kind))
    graph = ir.Graph([read], [], nodes=[], name="conversion", opset_imports={"": 13})
    inputs = [read]
    if op_type in ("QuantizeLinear", "DequantizeLinear"):
        inputs.append(add_initializer(graph, "scale", np.array(0.02, np.float32)))
        inputs.append(add_initializer(graph, "zero", np.array(128, np.uint8)))
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


def _open_convolutions(count: int, side: int, choice: str, params: Quantize, threads: int) -> Call:
    random = np.random.default_rng(0)
    value = ir.Value(name="x", shape=ir.Shape([1, _CHANNELS, side, side]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([value], [], nodes=[], name="convolutions", opset_imports={"": 13})
    for number in range(count):
        weight = random.standard_normal((_CHANNELS, _CHANNELS, 1, 1)).astype(np.float32) / _CHANNELS
        node = ir.Node("", "Conv", [value, add_initializer(graph, f"w{number}", weight)], name=f"conv{number}")
        graph.append(node)
        value = node.outputs[0]
        value.name, value.type = f"y{number}", ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape([1, _CHANNELS, side, side])
    graph.outputs.append(value)
    model = ir.Model(graph, ir_version=8)
    feed = {"x": random.standard_normal((1, _CHANNELS, side, side)).astype(np.float32)}
    if choice != KEPT:
        nodes = weighted_nodes(model)
        model, _ = mixed(model, nodes, {node.name: choice for node in nodes}, params, Known(lambda: [feed], "minmax"))
    return call(sessions.open_session(model, threads, name="convolutions"), feed)
