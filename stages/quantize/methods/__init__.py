"""The methods of quantization, one module each, behind one interface: `Method`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import onnx_ir as ir

from stages.common.base.params import Quantize
from stages.common.graph.weights import WeightedNode
from stages.common.model.sessions import Feed
from stages.quantize.outcome import NodeOutcome

CalibrationFeeds = Callable[[], Iterator[Feed]]
"""Gives the feeds of the search split, from the first, each time it is called."""


class Scope(Protocol):
    """What a method can be used for: a module with these names.

    Attributes:
        OP_TYPES: the operators that it has an INT8 form for.
        BY_DEFAULT: those of them that are quantized unless `quantize.op_types` says otherwise.
        WHY_NOT: of the others, why they are not, by operator.
        OPSET: the opset that its operators need.
    """

    OP_TYPES: frozenset[str]
    BY_DEFAULT: frozenset[str]
    WHY_NOT: Mapping[str, str]
    OPSET: int


class Method(Scope, Protocol):
    """A method: a module with these names, and a function that quantizes."""

    def quantize(
        self, model: ir.Model, nodes: Sequence[WeightedNode], params: Quantize, calibration: CalibrationFeeds
    ) -> tuple[ir.Model, dict[str, NodeOutcome]]:
        """Quantize `nodes`; the rest of the model stays as it is.

        Args:
            model: clean; it is not changed.
            nodes: those chosen, of `OP_TYPES`; an empty sequence gives the model back.
            params: the section `quantize`.
            calibration: feeds, for a method that needs them.

        Returns:
            A new model, and an outcome for each of `nodes` by name: the method may keep one float, and says why.

        Raises:
            StageError: the method cannot work on this model at all.
        """
        ...


def by_name(name: str) -> Method:
    """The method that `quantize.method` names."""
    from stages.quantize.methods import dynamic, static, weight_only

    methods: Mapping[str, Method] = {"dynamic": dynamic, "static": static, "weight_only": weight_only}
    return methods[name]
