"""From measurements to a problem: the options of nodes, the tensors between them, and the parts that never change."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from stages.common.base.params import Params
from stages.common.graph.weights import WeightedNode
from stages.common.model import model_file, sessions
from stages.common.model.sessions import Feed
from stages.quantize.auto import costs, junctions
from stages.quantize.auto.choices import KEPT, forms, of_node
from stages.quantize.auto.judge import model_bytes
from stages.quantize.auto.learn import BORDERS, scaled
from stages.quantize.auto.probe import Probed, Sensitivity, probe_all, unknowns, unmeasured
from stages.quantize.auto.problem import Option, Prices, Problem
from stages.quantize.auto.solve import best
from stages.quantize.auto.timing import call, in_turn, quiet_us
from stages.quantize.methods import Assignment
from stages.quantize.methods.static.ranges import Known

TIE_BREAK = 0.05
"""The price of the secondary objective: under `latency` all bytes of weights count as much as 5 % of the time."""

NOISE_TIE_BREAK = 0.02
"""The price of noise: all of the allowed noise counts as much as 2 % of the objective."""

WHOLE_SECONDS = 0.5
"""Seconds to time the whole float model."""


@dataclass(frozen=True)
class Measured:
    """A problem, and the measurements that it comes from.

    Attributes:
        problem: the problem, nodes with a weight first, then operators between them.
        names: names of the nodes with a weight, in the order of the problem.
        sensitivities: the error of every choice at every node, including unknown ones.
        refused: why a node cannot have a choice, by node and choice.
        unmeasured: why nodes could not be measured, by name.
        float_us: time of a call of the float model, in microseconds.
    """

    problem: Problem
    names: tuple[str, ...]
    sensitivities: tuple[Sensitivity, ...]
    refused: Mapping[str, Mapping[str, str]]
    unmeasured: Mapping[str, str]
    float_us: float


def measured(
    model: ir.Model, assigned: Sequence[Assignment], feeds: Sequence[Feed], whole: Params, calibration: Known
) -> Measured:
    """Measure the error and the time of every choice at every node.

    Args:
        model: the clean float model.
        assigned: the nodes that may be quantized.
        feeds: feeds of the serving batch size.
        whole: all params; `quantize`, `serving.threads` and `parity` are read.
        calibration: the calibration samples.

    Raises:
        StageError: the model does not run.
    """
    params, threads = whole.quantize, whole.serving.threads
    nodes = [assignment.node for assignment in assigned]
    probed = probe_all(model, assigned, feeds, whole.parity, calibration)
    op_types = {node.name: node.op_type for node in nodes}
    conversions = costs.measure_conversions(params, threads, images="Conv" in op_types.values())
    us = costs.kernel_us(probed, op_types, conversions, threads)
    powers = [s.power for node in probed.values() for s in node.sensitivities if s.power is not None]
    worst = max(powers, default=1.0)
    unknown = unmeasured(nodes, probed)
    options = [_options(node, probed.get(node.name), us, worst) for node in nodes]
    between = junctions.between(model.graph) if "Conv" in op_types.values() else []
    names = (*(node.name for node in nodes), *between)
    shapes = _shapes(probed)

    def price(values: Sequence[str]) -> tuple[Mapping[str, float], Mapping[str, float]]:
        known = [shapes[value] for value in values if value in shapes]
        return conversions.price(max(known, key=math.prod)) if known else ({}, {})

    joined = junctions.priced(junctions.tensors(model.graph, names), names, price)
    problem = Problem(names, (*options, *(junctions.BETWEEN for _ in between)), joined)
    session = sessions.open_session(model, threads, name="the clean float model")
    whole_us = float(quiet_us(in_turn([call(session, feeds[0])], WHOLE_SECONDS))[0])
    rest_bytes = max(0, model_file.stored_bytes(model) - problem.size(problem.all_float))
    problem = replace(_as_measured(problem, whole_us), rest_bytes=rest_bytes)
    sensitivities = (*(s for node in probed.values() for s in node.sensitivities), *unknowns(nodes, unknown))
    refused = {name: node.refused for name, node in probed.items()}
    return Measured(problem, tuple(node.name for node in nodes), sensitivities, refused, unknown, whole_us)


def prices(problem: Problem, objective: str) -> Prices:
    """The prices of an objective, `latency` or `size`; the other one and the noise break ties."""
    us = sum(options[0].us for options in problem.options) or 1.0
    size = sum(options[0].size for options in problem.options) or 1
    if objective == "latency":
        return Prices(1.0, TIE_BREAK * us / size, NOISE_TIE_BREAK * us)
    return Prices(TIE_BREAK * size / us, 1.0, NOISE_TIE_BREAK * size)


def _options(
    node: WeightedNode, probed: Probed | None, us: Mapping[tuple[str, str], float], worst: float
) -> tuple[Option, ...]:
    """The options of a node, float first. A node that was not measured gets the largest noise of all nodes."""
    takes, gives = forms(node.op_type, KEPT)
    if probed is None:
        kept = Option(KEPT, 0.0, 0.0, node.nbytes)
        return kept, *(Option(choice.name, 0.0, worst, node.nbytes // 4) for choice in of_node(node))
    options = [Option(KEPT, us[node.name, KEPT], 0.0, node.nbytes, takes, gives)]
    for sensitivity in probed.sensitivities:
        choice, power = sensitivity.choice, sensitivity.power
        takes, gives = forms(node.op_type, choice)
        size = model_bytes(probed.models[choice])
        if not sensitivity.unknown:
            noise = worst if power is None else power
            options.append(Option(choice, us[node.name, choice], noise, size, takes, gives))
    return tuple(options)


def _as_measured(problem: Problem, whole_us: float) -> Problem:
    """The problem with `rest_us`; if its nodes take longer together than the whole model, they are scaled to it."""
    kernels = problem.us(_blocked(problem))
    if kernels <= whole_us:
        return replace(problem, rest_us=whole_us - kernels)
    choices = {option.choice for options in problem.options for option in options}
    return scaled(problem, {}, dict.fromkeys([*choices, BORDERS], whole_us / kernels))


def _blocked(problem: Problem) -> tuple[int, ...]:
    """The assignment with all nodes float, and operators between convolutions in blocked layout."""
    floats = tuple(
        tuple(option for option in options if option.choice in (KEPT, "blocked")) for options in problem.options
    )
    return best(Problem(problem.names, floats, problem.junctions), Prices(1.0, 0.0))


def _shapes(probed: Mapping[str, Probed]) -> dict[str, tuple[int, ...]]:
    """The shapes, by name, of the values that nodes with a weight read or return."""
    shapes: dict[str, tuple[int, ...]] = {}
    for node in probed.values():
        shapes |= {name: array.shape for name, array in node.single.feeds[0].items()}
        output = node.single.model.graph.outputs[0].name
        shapes[output or ""] = node.single.outputs[0].shape
    return shapes
