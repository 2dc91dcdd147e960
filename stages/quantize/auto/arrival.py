"""What arrives at the outputs of the model of an error that one node makes: the float model is run with it added.

An error is damped or amplified on its way, by normalizations and saturating functions, by layers that follow. So each
node's error is measured where parity judges, and not where it is made.
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
    """The float model with an input for the error of each node."""

    def __init__(self, model: ir.Model, nodes: Sequence[str], feeds: Sequence[Feed], parity: Parity) -> None:
        """Open it.

        Args:
            model: the float model; not changed.
            nodes: names of nodes of the main graph whose main output is float32.
            feeds: to run it on.
            parity: the tolerances.

        Raises:
            StageError: it does not run.
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
        """The largest share of a tolerance of distance that errors of a node use up, all others being exact.

        Args:
            node: its name.
            errors: what is added to its output, by number of the feed.

        Returns:
            None where no output can be compared.
        """
        made = self._run({number: {self._inputs[node]: error} for number, error in errors.items()}, errors)
        exact = {name: [self._exact[name][number] for number in errors] for name in self._exact}
        return distance_strain(exact, made, self._parity)

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
    """Add an error to what each node gives; the inputs for them by node."""
    fresh = Names(model).fresh
    inputs = {}
    for node in list(model.graph):
        if node.name not in nodes:
            continue
        given = main_output(node)
        name, is_output = name_of(given), given.is_graph_output()
        error = ir.Value(name=fresh(f"{name}_error"), type=ir.TensorType(ir.DataType.FLOAT))
        add = ir.Node("", "Add", [given, error], name=fresh(f"{node.name}_error_added"))
        total = add.outputs[0]
        total.shape, total.type = given.shape, given.type
        ir.convenience.replace_all_uses_with(given, total, replace_graph_outputs=is_output)
        add.replace_input_with(0, given)
        given.name, total.name = fresh(f"{name}_exact"), name
        model.graph.insert_after(node, add)
        model.graph.inputs.append(error)
        inputs[node.name] = error.name or ""
    return inputs
