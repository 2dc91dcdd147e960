"""The error of each choice at each node, measured on the node alone, with its inputs in the float model.

The error at the node is reduced to two numbers, the sum of squared differences and the sum of squares of the float
output; its effect on the outputs of the model, to the share of a tolerance that it uses. These shares rank the choices;
whole models, run on real samples, decide.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from tqdm import tqdm

from stages.common.base.errors import StageError
from stages.common.base.params import Parity
from stages.common.graph.walk import constant, name_of
from stages.common.graph.weights import WeightedNode
from stages.common.model import sessions
from stages.common.model.sessions import Feed
from stages.quantize.auto.arrival import Arrival
from stages.quantize.auto.choices import of_node
from stages.quantize.auto.one_node import OneNode, cut_out, main_output, quantized, read_values
from stages.quantize.methods import Assignment
from stages.quantize.methods.static.ranges import Known

GROUP_BYTES = 128 << 20
"""Most bytes of activations to keep in memory."""

ARRIVAL_SECONDS = 10.0
"""Most seconds to run the float model with errors of its nodes; they limit the number of feeds."""

MIN_FEEDS = 2
"""Fewest feeds to run the float model on. If even these take too long, it runs with one choice per node only."""


@dataclass(frozen=True)
class Sensitivity:
    """The error of a choice at a node.

    Attributes:
        node: name of the node.
        choice: name of the choice.
        noise: the sum of squared differences over all feeds; None if it was not measured.
        signal: the sum of squares of the float output.
        strain: the share of a tolerance that this choice alone uses; None if no output of the model can be compared.
        unknown: why it was not measured; empty if it was.
    """

    node: str
    choice: str
    noise: float | None = None
    signal: float | None = None
    strain: float | None = None
    unknown: str = ""

    @property
    def share(self) -> float | None:
        """Noise power over signal power; None if it is unknown."""
        if self.noise is None or self.signal is None:
            return None
        return self.noise / self.signal if self.signal else (0.0 if self.noise == 0 else None)

    @property
    def power(self) -> float | None:
        """The squared strain, which adds up over nodes; if it is unknown, noise power over signal power."""
        return self.share if self.strain is None else self.strain**2

    def scaled(self, noise: float) -> float | None:
        """The strain of an error at the same node whose sum of squares is `noise`; None if this one's is unknown."""
        return self.strain * math.sqrt(noise / self.noise) if self.strain is not None and self.noise else None


@dataclass(frozen=True)
class Probed:
    """A node that was cut out, the models of its choices by name, and their errors."""

    single: OneNode
    models: Mapping[str, ir.Model]
    refused: Mapping[str, str]
    sensitivities: tuple[Sensitivity, ...]

    @property
    def weight_bytes(self) -> int:
        """Bytes of its float constants."""
        initializers = self.single.model.graph.initializers.values()
        return sum(value.const_value.nbytes for value in initializers if value.const_value is not None)


def singles(model: ir.Model, nodes: Sequence[Assignment], feeds: Sequence[Feed]) -> Iterator[OneNode]:
    """Cut out the nodes of the main graph, with their inputs and outputs for each feed.

    Raises:
        StageError: the model does not run.
    """
    by_name = {node.name: node for node in model.graph}
    wanted = [by_name[node.name] for node in nodes if not node.node.graph]
    first = _observed(model, wanted, feeds[:1])[0]
    group: list[ir.Node] = []
    size = 0
    for node in [*wanted, None]:
        bytes_ = 0 if node is None else sum(first.get(name_of(value), np.empty(0)).nbytes for value in _ends(node))
        if group and (node is None or (size + bytes_) * len(feeds) > GROUP_BYTES):
            seen: list[Mapping[str, np.ndarray]] = list(_observed(model, group, feeds))
            for single in group:
                if all(name_of(value) in arrays for value in _ends(single) for arrays in seen):
                    yield cut_out(model, single, seen)
            group, size = [], 0
        if node is not None:
            group.append(node)
            size += bytes_


def probe(
    single: OneNode,
    assigned: Assignment,
    arrival: Arrival,
    numbers: Sequence[int],
    rows: Mapping[str, np.ndarray],
    *,
    every_choice: bool,
) -> Probed:
    """Build and run every choice of a node.

    Args:
        single: the node, cut out of the model.
        assigned: the node's params.
        arrival: runs the float model with the errors of the node added.
        numbers: indices of the feeds to run the float model on.
        rows: rows of activations that smoothing is fitted to, by name.
        every_choice: whether the float model runs with the errors of every choice. If not, it runs with those of the
            first only, and the strain of the others is assumed to scale with the root mean square of their errors.
    """
    models: dict[str, ir.Model] = {}
    refused: dict[str, str] = {}
    sensitivities: list[Sensitivity] = []
    first: Sensitivity | None = None
    for choice in of_node(assigned.node):
        model, reason = quantized(single, choice, assigned.params, rows)
        if model is None:
            refused[choice.name] = reason
            continue
        try:
            errors = _errors(model, single)
        except StageError as error:
            refused[choice.name] = f"ONNX Runtime refuses it: {error}"
            continue
        models[choice.name] = model
        noise, signal = (
            float(sum(np.square(array.astype(np.float64)).sum() for array in arrays))
            for arrays in (errors, single.outputs)
        )
        if not np.isfinite(noise):
            sensitivities.append(Sensitivity(assigned.name, choice.name, unknown="its outputs are not finite"))
            continue
        if first is None or every_choice:
            strain = arrival.strain(assigned.name, {number: errors[number] for number in numbers})
        else:
            strain = first.scaled(noise)
        sensitivity = Sensitivity(assigned.name, choice.name, noise, signal, strain)
        sensitivities.append(sensitivity)
        if first is None and noise:
            first = sensitivity
    return Probed(single, models, refused, tuple(sensitivities))


def probe_all(
    model: ir.Model, nodes: Sequence[Assignment], feeds: Sequence[Feed], parity: Parity, calibration: Known
) -> dict[str, Probed]:
    """Measure every node that can be cut out; returns the results by name.

    The few feeds hold too few rows of an activation to fit smoothing to, so these come from `calibration`.

    Raises:
        StageError: the model does not run.
    """
    by_name = {node.name: node for node in nodes}
    floats = [node for node in nodes if not node.node.graph and node.node.weights[0].dtype == "float32"]
    arrival = Arrival(model, [node.name for node in floats], feeds, parity)
    runs = sum(len(of_node(node.node)) for node in floats)
    affordable = int(ARRIVAL_SECONDS / (arrival.seconds * max(1, runs)))
    numbers = _unseen_first(len(feeds))[: max(MIN_FEEDS, affordable)]
    every_choice = affordable >= min(MIN_FEEDS, len(feeds))
    rows = calibration.rows(model, _to_smooth(model, floats))
    probed = {}
    progress = tqdm(singles(model, nodes, feeds), "probe", len(nodes), unit=" nodes", leave=False, disable=None)
    for single in progress:
        name = single.model.graph[0].name or ""
        try:
            sessions.open_session(single.model, name=name)
        except StageError:
            continue
        probed[name] = probe(single, by_name[name], arrival, numbers, rows, every_choice=every_choice)
    return probed


def unmeasured(nodes: Iterable[WeightedNode], probed: Mapping[str, Probed]) -> dict[str, str]:
    """Why nodes could not be measured, by name."""
    return {
        node.name: f"it is in the subgraph {node.graph}" if node.graph else "it does not run alone"
        for node in nodes
        if node.name not in probed
    }


def unknowns(nodes: Iterable[WeightedNode], reasons: Mapping[str, str]) -> list[Sensitivity]:
    """The choices of nodes that could not be measured, with the reason."""
    return [
        Sensitivity(node.name, choice.name, unknown=reasons[node.name])
        for node in nodes
        if node.name in reasons
        for choice in of_node(node)
    ]


def by_power(sensitivities: Iterable[Sensitivity]) -> list[Sensitivity]:
    """Sort sensitivities: unknown ones first, then the largest."""
    return sorted(
        sensitivities,
        key=lambda entry: (-(math.inf if entry.power is None else entry.power), entry.node, entry.choice),
    )


def _unseen_first(count: int) -> list[int]:
    """The indices of the feeds, those that calibrate static last."""
    return [*range(1, count, 2), *range(0, count, 2)]


def _to_smooth(model: ir.Model, nodes: Sequence[Assignment]) -> list[str]:
    """The names of the activations that a choice of their node smooths."""
    smoothed = {node.name for node in nodes if any(choice.smoothed for choice in of_node(node.node))}
    activations = {node.inputs[0] for node in model.graph if node.name in smoothed}
    return sorted(name_of(value) for value in activations if value is not None and constant(value) is None)


def _ends(node: ir.Node) -> list[ir.Value]:
    return [*read_values(node), main_output(node)]


def _observed(model: ir.Model, nodes: Sequence[ir.Node], feeds: Sequence[Feed]) -> list[dict[str, np.ndarray]]:
    """For each feed, the arrays that these nodes read and return, by name."""
    names = sorted({name_of(value) for node in nodes for value in _ends(node) if constant(value) is None} - {""})
    watched = model.clone()
    graph = watched.graph
    values = {value.name: value for node in graph for value in node.outputs}
    inputs = {value.name for value in graph.inputs}
    graph.outputs.extend(values[name] for name in names if name in values and not values[name].is_graph_output())
    asked = [name for name in names if name in values]
    session = sessions.open_session(watched, name="the model with its activations as outputs")
    seen = []
    for feed in feeds:
        arrays = sessions.run(session, feed, asked, name="the float model") if asked else []  # no names would mean all
        outputs = {name: array for name, array in zip(asked, arrays, strict=True) if isinstance(array, np.ndarray)}
        seen.append(outputs | {name: np.asarray(feed[name]) for name in names if name in inputs and name in feed})
    return seen


def _errors(model: ir.Model, single: OneNode) -> list[np.ndarray]:
    """The error of the quantized node's output for each feed."""
    session = sessions.open_session(model, name="the node alone")
    with np.errstate(invalid="ignore"):
        return [
            sessions.run(session, feed, name="the node alone")[0] - expected
            for feed, expected in zip(single.feeds, single.outputs, strict=True)
        ]
