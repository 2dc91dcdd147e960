"""The quantization methods, a module for each.

`dynamic`, `weight_only` and `stored` replace node by node, each with a table of rewrites by operator. `static` also
places QuantizeLinear and DequantizeLinear between nodes, so it has a function of its own.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from stages.common.base.params import Quantize
from stages.common.graph.weights import WeightedNode
from stages.common.model.sessions import Feed
from stages.quantize.methods.rewriter import Rewrite, Rewriter
from stages.quantize.outcome import NodeOutcome, kept_in_opset

DYNAMIC_OPSET = 11
"""The first opset with DynamicQuantizeLinear."""

AXIS_OPSET = 13
"""The first opset with QuantizeLinear along an axis."""

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


def op_types(method: str) -> frozenset[str]:
    """The operators for which a `quantize.method`, or under `auto` and `plan` any choice, has an INT8 form."""
    from stages.quantize.auto import choices
    from stages.quantize.methods import dynamic, static, stored, weight_only

    known: Mapping[str, frozenset[str]] = {
        "static": static.OP_TYPES,
        "dynamic": dynamic.OP_TYPES,
        "weight_only": weight_only.OP_TYPES,
        "stored": stored.OP_TYPES,
    }
    return known.get(method, choices.OP_TYPES)


def opset(params: Quantize) -> int:
    """The opset that a node with these params needs once it is quantized."""
    if params.method in ("weight_only", "stored"):
        return 1  # their operators are in ONNX Runtime's own domain, or as old as any that it supports
    per_tensor = params.method == "dynamic" and params.activation_scale == "tensor"
    return DYNAMIC_OPSET if per_tensor else AXIS_OPSET


def quantize(
    model: ir.Model, assignments: Sequence[Assignment], calibration: CalibrationFeeds
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Quantize each assigned node by its method; the rest of the model stays as it is.

    Static comes first, because it runs the float model.

    Args:
        model: a clean float model; not changed.
        assignments: the nodes to quantize, by methods that know their operators; if empty, the model is returned as it
            is.
        calibration: feeds for static and for smoothing.

    Returns:
        A new model, and the outcomes by node name; a method may keep a node float, with the reason.

    Raises:
        StageError: the model does not run on the calibration samples.
    """
    from stages.quantize.methods import dynamic, shield, smooth, static, stored, weight_only

    outcomes: dict[str, NodeOutcome] = {}
    if smoothed := [assigned for assigned in assignments if assigned.smoothed]:
        model, outcomes = smooth.apply(model, smoothed, calibration)
        assignments = [assigned for assigned in assignments if assigned.name not in outcomes]
    by_method: dict[str, list[Assignment]] = defaultdict(list)
    for assigned in assignments:
        by_method[assigned.params.method].append(assigned)
    if by_method["static"]:
        model, of_static = static.quantize(model, by_method["static"], calibration)
        outcomes |= of_static
    tables = {"dynamic": dynamic.REWRITES, "weight_only": weight_only.REWRITES, "stored": stored.REWRITES}
    for method, rewrites in tables.items():
        if by_method[method]:
            model, of_method = _rewritten(model, by_method[method], rewrites)
            outcomes |= of_method
    if by_method:
        shield.apply(model)
    return model, outcomes


def _rewritten(
    model: ir.Model, assignments: Sequence[Assignment], by_operator: Mapping[str, Rewrite]
) -> tuple[ir.Model, dict[str, NodeOutcome]]:
    """Replace each assigned node by what the rewrite of its operator emits."""
    version = model.opset_imports.get("", 0)
    outcomes, rewrites = {}, {}
    for assigned in assignments:
        needed = opset(assigned.params)
        if version < needed:
            outcomes[assigned.name] = kept_in_opset(version, needed)
        else:
            rewrites[assigned.name] = by_operator[assigned.node.op_type], assigned.params
    quantized = model.clone()
    return quantized, outcomes | Rewriter(quantized).rewrite(rewrites)
