"""Whether the quantized file is smaller than the float one, and if not, why."""

from collections.abc import Mapping

import onnx_ir as ir

from stages.common.model import model_file
from stages.quantize.outcome import NodeOutcome
from stages.quantize.preparation import WIDENED, Prepared

LARGEST_SHARE = 1.0
"""The float model is kept if the quantized file has at least this share of its size."""


def growth(source: ir.Model, prepared: Prepared, quantized: ir.Model, outcomes: Mapping[str, NodeOutcome]) -> str:
    """Why the quantized file would not be smaller than the float one, as a clause; empty if it is smaller.

    Args:
        source: the float model as published.
        prepared: the model that was quantized.
        quantized: the result.
        outcomes: the outcome of each node, by name.
    """
    before, after = model_file.stored_bytes(source), model_file.stored_bytes(quantized)
    if after < LARGEST_SHARE * before:
        return ""
    if any(step.name == WIDENED and not step.undone for step in prepared.steps):
        cause = "weights that stay float were float16"
    elif after - _stored_twice(source, prepared, quantized, outcomes) < before:
        cause = "weights that float nodes also read would be stored twice"
    else:
        cause = "scales and added nodes take more than INT8 weights save"
    return f"quantized, the file would grow from {before / 1e6:.4g} to {after / 1e6:.4g} MB: {cause}"


def _stored_twice(
    source: ir.Model, prepared: Prepared, quantized: ir.Model, outcomes: Mapping[str, NodeOutcome]
) -> int:
    """Bytes of weights stored in INT8 and also in float, under their own names or as the constants that give them."""
    taken = {
        weight.name: weight.nbytes
        for node in prepared.nodes
        if outcomes[node.name].quantized
        for weight in node.weights
    }
    named = sum(size for name, size in taken.items() if name in quantized.graph.initializers)
    computed = model_file.weight_bytes(prepared.model) - model_file.weight_bytes(source)
    return named + max(0, computed)
