"""How far the error of one node moves the outputs of the model: the float model runs with the error added.

Normalizations, saturating functions and later layers damp or amplify an error, so it is measured at the outputs, where
parity judges, and not at the node.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from stages.common.base.params import Parity
from stages.common.graph.names import Names
from stages.common.graph.walk import name_of
from stages.common.model import sessions
from stages.common.model.sessions import Feed
from stages.quantize.auto.distance import distance_strain
from stages.quantize.auto.one_node import main_output

_NOTHING = np.zeros((), np.float32)


class Arrival:
    """The float model with an extra input for the error of each node."""

    def __init__(self, model: ir.Model, nodes: Sequence[str], feeds: Sequence[Feed], parity: Parity) -> None:
        """Open a session, and run the float model without errors.

        Args:
            model: the float model; not changed.
            nodes: names of nodes of the main graph whose main output is float32.
            feeds: the feeds to run it on.
            parity: the tolerances.

        Raises:
            StageError: the model does not run.
        """
        watched = model.clone()
        self._inputs = _with_errors(watched, set(nodes))
        self._feeds, self._parity = feeds, parity
        self._session = sessions.open_session(watched, name="the float model with errors")
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._zeros = dict.fromkeys(self._inputs.values(), _NOTHING)
        self._exact = self._run({}, range(len(feeds)))
        started = time.perf_counter()
        self._run({}, [0])
        self.seconds = time.perf_counter() - started

    def strain(self, node: str, errors: Mapping[int, np.ndarray]) -> float | None:
        """The largest share of a distance tolerance that errors of one node use up.

        Args:
            node: the node's name.
            errors: errors of its output, by index of the feed.

        Returns:
            None if no output can be compared.
        """
        moved = self._run({number: {self._inputs[node]: error} for number, error in errors.items()}, errors)
        exact = {name: [self._exact[name][number] for number in errors] for name in self._exact}
        return distance_strain(exact, moved, self._parity)

    def _run(self, errors: Mapping[int, Feed], numbers: Iterable[int]) -> dict[str, list[np.ndarray]]:
        runs = [
            sessions.run(
                self._session, {**self._feeds[number], **self._zeros, **errors.get(number, {})}, name="the float model"
            )
            for number in numbers
        ]
        columns = dict(zip(self._outputs, zip(*runs, strict=True), strict=True))
        return {name: list(arrays) for name, arrays in columns.items() if isinstance(arrays[0], np.ndarray)}


def _with_errors(model: ir.Model, nodes: set[str]) -> dict[str, str]:
    """Add an error to the main output of each node; returns the names of the inputs for the errors by node name."""
    fresh = Names(model).fresh
    inputs = {}
    for node in list(model.graph):
        if node.name not in nodes:
            continue
        exact = main_output(node)
        name, is_output = name_of(exact), exact.is_graph_output()
        error = ir.Value(name=fresh(f"{name}_error"), type=ir.TensorType(ir.DataType.FLOAT))
        add = ir.Node("", "Add", [exact, error], name=fresh(f"{node.name}_error_added"))
        total = add.outputs[0]
        total.shape, total.type = exact.shape, exact.type
        ir.convenience.replace_all_uses_with(exact, total, replace_graph_outputs=is_output)
        add.replace_input_with(0, exact)
        exact.name, total.name = fresh(f"{name}_exact"), name
        model.graph.insert_after(node, add)
        model.graph.inputs.append(error)
        inputs[node.name] = error.name or ""
    return inputs
