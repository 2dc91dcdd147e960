"""The methods of quantization, one module each, behind one interface: `Method`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from stages.common.base.params import Quantize
from stages.common.graph.weights import WeightedNode
from stages.common.model.sessions import Feed
from stages.quantize.outcome import NodeOutcome

CalibrationFeeds = Callable[[], Iterator[Feed]]
"""Gives the feeds of the search split, from the first, each time it is called."""


@dataclass(frozen=True)
class Assignment:
    """A node that is to be quantized, and how.

    Attributes:
        node: as it is in the model.
        params: that hold for it.
        smoothed: whether what it reads is smoothed first.
        padded: whether it gets filters of zeros where a faster kernel asks for them.
    """

    node: WeightedNode
    params: Quantize
    smoothed: bool = False
    padded: bool = False

    @property
    def name(self) -> str:
        """Of the node."""
        return self.node.name


class Scope(Protocol):
    """What can become of operators: a module with these names.

    Attributes:
        OP_TYPES: the operators that it has an INT8 form for.
        BY_DEFAULT: those of them that are quantized unless `quantize.op_types` says otherwise.
        WHY_NOT: of the others, why they are not, by operator.
    """

    OP_TYPES: frozenset[str]
    BY_DEFAULT: frozenset[str]
    WHY_NOT: Mapping[str, str]

    def opset(self, params: Quantize) -> int:
        """The opset that the operators of a node with these params need."""
        ...


class Method(Scope, Protocol):
    """A method: a module with these names, and a function that quantizes."""

    def quantize(
        self, model: ir.Model, assignments: Sequence[Assignment], calibration: CalibrationFeeds
    ) -> tuple[ir.Model, dict[str, NodeOutcome]]:
        """Quantize the nodes assigned; the rest of the model stays as it is.

        Args:
            model: clean; it is not changed.
            assignments: nodes of `OP_TYPES`; an empty sequence gives the model back.
            calibration: feeds, for a method that needs them.

        Returns:
            A new model, and an outcome for each node by name: the method may keep one float, and says why.

        Raises:
            StageError: the method cannot work on this model at all.
        """
        ...


def scope(name: str) -> Scope:
    """What `quantize.method` reaches: `auto` and `plan` all that they can choose from."""
    from stages.quantize.auto import choices

    return choices if name in ("auto", "plan") else by_name(name)


def by_name(name: str) -> Method:
    """The method that a node is quantized by."""
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
    """Quantize each node by its own method; see `Method.quantize`. Static comes first: it runs the float model."""
    from stages.quantize.methods import smooth

    outcomes: dict[str, NodeOutcome] = {}
    if smoothed := [assigned for assigned in assignments if assigned.smoothed]:
        model, outcomes = smooth.apply(model, smoothed, calibration)
        assignments = [assigned for assigned in assignments if assigned.name not in outcomes]
    for name in ("static", "dynamic", "weight_only", "stored"):
        own = [assigned for assigned in assignments if assigned.params.method == name]
        if own:
            model, made = by_name(name).quantize(model, own, calibration)
            outcomes |= made
    return model, outcomes
