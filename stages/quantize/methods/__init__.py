"""The quantization methods: a module for each, all with the interface `Method`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from stages.common.base.params import Quantize
from stages.common.graph.weights import WeightedNode
from stages.common.model.sessions import Feed
from stages.quantize.outcome import NodeOutcome

CalibrationFeeds = Callable[[], Iterator[Feed]]
"""Iterates over the calibration feeds, from the start on each call."""


@dataclass(frozen=True)
class Assignment:
    """A node to quantize, and how.

    Attributes:
        node: the node of the float model.
        params: the params for this node.
        smoothed: whether its activation is smoothed first.
        padded: whether a convolution gets filters of zeros if a faster kernel needs them.
    """

    node: WeightedNode
    params: Quantize
    smoothed: bool = False
    padded: bool = False

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name


class Scope(Protocol):
    """Which operators a value of `quantize.method` supports: a module with these names.

    Attributes:
        OP_TYPES: the operators that have an INT8 form.
        BY_DEFAULT: those that are quantized unless `quantize.op_types` says otherwise.
        WHY_NOT: why the others are not quantized by default, by operator.
    """

    OP_TYPES: frozenset[str]
    BY_DEFAULT: frozenset[str]
    WHY_NOT: Mapping[str, str]

    def opset(self, params: Quantize) -> int:
        """The opset that a node with these params needs once it is quantized."""
        ...


class Method(Scope, Protocol):
    """A method: a scope with a function that quantizes."""

    def quantize(
        self, model: ir.Model, assignments: Sequence[Assignment], calibration: CalibrationFeeds
    ) -> tuple[ir.Model, dict[str, NodeOutcome]]:
        """Quantize the assigned nodes; the rest of the model stays as it is.

        Args:
            model: a clean float model; not changed.
            assignments: the nodes to quantize, all of `OP_TYPES`; if empty, the model is returned as it is.
            calibration: feeds for a method that calibrates.

        Returns:
            A new model, and the outcomes by node name; the method may keep a node float, with the reason.

        Raises:
            StageError: the method does not work on this model at all.
        """
        ...


def scope(name: str) -> Scope:
    """The operators that a value of `quantize.method` supports; `auto` and `plan` support what any method does."""
    from stages.quantize.auto import choices

    return choices if name in ("auto", "plan") else by_name(name)


def by_name(name: str) -> Method:
    """The module of a method that quantizes nodes."""
    from stages.quantize.methods import dynamic, static, stored, weight_only

    methods: Mapping[str, Method] = {
        "static": static,
        "dynamic": dynamic,
        "weight_only": weight_only,
        "stored": stored,
    }
    return methods[name]


def quantize(
    model: ir.Model, assignments: Sequence[Assignment], calibration: CalibrationFeeds
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Quantize each node by its method; see `Method.quantize`. Static comes first, because it runs the float model."""
    from stages.quantize.methods import smooth

    outcomes: dict[str, NodeOutcome] = {}
    if smoothed := [assigned for assigned in assignments if assigned.smoothed]:
        model, outcomes = smooth.apply(model, smoothed, calibration)
        assignments = [assigned for assigned in assignments if assigned.name not in outcomes]
    for name in ("static", "dynamic", "weight_only", "stored"):
        own = [assigned for assigned in assignments if assigned.params.method == name]
        if own:
            model, of_method = by_name(name).quantize(model, own, calibration)
            outcomes |= of_method
    return model, outcomes
