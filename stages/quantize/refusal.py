"""Models that must not be quantized, each refused with the reason."""

import re

import numpy as np
from onnx import ModelProto

from stages.common.base.errors import StageError
from stages.common.model import model_file
from stages.quantize.graphs import all_nodes, scopes
from stages.quantize.inventory import WEIGHT_INPUTS, weighted_nodes

_QUANTIZED = re.compile(
    r"(De)?[Qq]uantizeLinear|DynamicQuantize.+|.+Integer(ToFloat)?|Q(Attention|EmbedLayerNormalization|Gemm|MoE)"
    r"|Q(Linear|Ordered).+|MatMul(NBits|Bnb4)|GatherBlockQuantized"
)
"""Operators with quantized operands, of ONNX and of ONNX Runtime."""

_TRAINED = WEIGHT_INPUTS.keys() - {"Gather"}
_DECODERS = frozenset({"BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"})


def refuse(model: ModelProto, name: str) -> None:
    """Refuse a model that is quantized already, or hides its weights in a decoder.

    Args:
        model: as read.
        name: what to call it.

    Raises:
        StageError: it must not be quantized.
    """
    for node in all_nodes(model):
        place = _place(node.op_type, node.name)
        if _QUANTIZED.fullmatch(node.op_type):
            raise StageError(
                f"{name} is quantized already: it has {place}. Give the float model it was made from as export.source."
            )
        if node.op_type in _DECODERS:
            raise StageError(
                f"{name} holds a whole decoder inside {place}, where ONNX Runtime cannot use INT8 weights. "
                "Export and quantize the decoder by itself, before the search is wrapped around it."
            )


def refuse_non_finite_weights(model: ModelProto, name: str) -> None:
    """Refuse a model with NaN or infinity in a weight of a trained operator.

    Tables that Gather reads and constants of other operators may hold infinity on purpose: attention masks do.

    Raises:
        StageError: naming the tensor and the node.
    """
    by_path = {scope.path: scope for scope in scopes(model)}
    for node in weighted_nodes(model):
        if node.op_type not in _TRAINED:
            continue
        for weight in node.weights:
            found = by_path[node.graph].constant(weight.name)
            if found is None:
                continue
            values = model_file.array(found)
            bad = int(values.size - np.count_nonzero(np.isfinite(values)))
            if bad:
                what = "NaN" if np.isnan(values).any() else "infinity"
                raise StageError(
                    f"{name}: the weight {weight.name!r} of {_place(node.op_type, node.name)} has {what} in {bad} of "
                    f"{values.size} values. The training diverged or the export is damaged: mend the model."
                )


def _place(op_type: str, name: str) -> str:
    return f"the {op_type} node {name!r}" if name else f"an unnamed {op_type} node"
