"""Models that must not be quantized, each refused with the reason."""

import numpy as np
from onnx import ModelProto

from stages.common import model_file
from stages.common.errors import StageError
from stages.quantize.graphs import all_nodes, scopes
from stages.quantize.inventory import weighted_nodes

_QUANTIZED = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
_QUANTIZED_MICROSOFT = frozenset(
    {"DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "GatherBlockQuantized", "MatMulNBits", "MatMulBnb4", "QAttention"}
)
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
        place = f"{node.op_type} node {node.name!r}" if node.name else f"a {node.op_type} node"
        if _is_quantized(node.op_type, node.domain):
            raise StageError(
                f"{name} is quantized already: it has {place}. Give the float model it was made from as export.source."
            )
        if node.op_type in _DECODERS:
            raise StageError(
                f"{name} holds a whole decoder inside {place}, where ONNX Runtime cannot use INT8 weights. "
                "Export and quantize the decoder by itself, before the search is wrapped around it."
            )


def refuse_non_finite_weights(model: ModelProto, name: str) -> None:
    """Refuse a model with NaN or infinity in a weight.

    Raises:
        StageError: naming the tensor and the node.
    """
    by_path = {scope.path: scope for scope in scopes(model)}
    for node in weighted_nodes(model):
        for weight in node.weights:
            found = by_path[node.graph].constant(weight.name)
            if found is None:
                continue
            values = model_file.array(found[1]).astype(np.float32)
            bad = int(values.size - np.count_nonzero(np.isfinite(values)))
            if bad:
                what = "NaN" if np.isnan(values).any() else "infinity"
                raise StageError(
                    f"{name}: the weight {weight.name!r} of {node.op_type} node {node.name!r} has {what} in {bad} of "
                    f"{values.size} values. The training diverged or the export is damaged: mend the model."
                )


def _is_quantized(op_type: str, domain: str) -> bool:
    if op_type in _QUANTIZED or op_type in _QUANTIZED_MICROSOFT:
        return True
    return op_type.endswith("Integer") or (op_type.startswith(("QLinear", "QEmbed", "QGemm", "QMoE")) and bool(op_type))
