"""From measurements to a problem: the options of each node, the tensors between them, and what nothing changes."""

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
from stages.quantize.auto.problem import Option, Problem, Weights
from stages.quantize.auto.solve import best
from stages.quantize.auto.timing import call, in_turn, quiet_us
from stages.quantize.methods import Assignment

TIE = 0.05
"""What is not the objective counts as much as a twentieth of it: all bytes of weights as much as 5 % of the time."""

NOISE = 0.02
"""All the noise that is allowed counts as much as 2 % of the objective: of equal choices, the most exact is taken."""

WHOLE_SECONDS = 0.5
"""Timed of the whole float model."""


@dataclass(frozen=True)
class Measured:
    """A problem, and what it was made from.

    Attributes:
        problem: nodes with a weight first, then operators between them.
        names: of the nodes with a weight, in the order of the problem.
        sensitivities: of every node and choice, those that are unknown included.
        refused: by node and choice, why the node cannot take it.
        unmeasured: of nodes that could not be observed, why.
        float_us: time of a call of the float model, in microseconds.
    """

    problem: Problem
    names: tuple[str, ...]
    sensitivities: tuple[Sensitivity, ...]
    refused: Mapping[str, Mapping[str, str]]
    unmeasured: Mapping[str, str]
    float_us: float


def measured(model: ir.Model, assigned: Sequence[Assignment], feeds: Sequence[Feed], whole: Params) -> Measured:
    """Probe and time every choice of `nodes`.

    Args:
        model: clean.
        assigned: the nodes that may be quantized.
        feeds: of the serving batch.
        whole: the params; `quantize`, `serving.threads` and `parity` are read.

    Raises:
        StageError: the model does not run.
    """
    params, threads = whole.quantize, whole.serving.threads
    nodes = [assignment.node for assignment in assigned]
    probed = probe_all(model, assigned, feeds, whole.parity)
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


def weights(problem: Problem, objective: str) -> Weights:
    """How time and bytes count for an objective, `latency` or `size`: the other one and the noise break ties."""
    us = sum(options[0].us for options in problem.options) or 1.0
    size = sum(options[0].size for options in problem.options) or 1
    if objective == "latency":
        return Weights(1.0, TIE * us / size, NOISE * us)
    return Weights(TIE * size / us, 1.0, NOISE * size)


def _options(
    node: WeightedNode, probed: Probed | None, us: Mapping[tuple[str, str], float], worst: float
) -> tuple[Option, ...]:
    """Float first. A node that was not observed has the largest noise of all, so that it is not taken for harmless."""
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
    """The problem with the time that no choice changes; nodes that take longer than the whole model are scaled."""
    kernels = problem.us(_blocked(problem))
    if kernels <= whole_us:
        return replace(problem, rest_us=whole_us - kernels)
    choices = {option.choice for options in problem.options for option in options}
    return scaled(problem, {}, dict.fromkeys([*choices, BORDERS], whole_us / kernels))


def _blocked(problem: Problem) -> tuple[int, ...]:
    """Everything float, operators between convolutions in their layout."""
    floats = tuple(
        tuple(option for option in options if option.choice in (KEPT, "blocked")) for options in problem.options
    )
    return best(Problem(problem.names, floats, problem.junctions), Weights(1.0, 0.0))


def _shapes(probed: Mapping[str, Probed]) -> dict[str, tuple[int, ...]]:
    """The observed shape of each value that a node with a weight reads or gives."""
    shapes: dict[str, tuple[int, ...]] = {}
    for node in probed.values():
        shapes |= {name: array.shape for name, array in node.single.feeds[0].items()}
        output = node.single.model.graph.outputs[0].name
        shapes[output or ""] = node.single.outputs[0].shape
    return shapes
