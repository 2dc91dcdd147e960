"""Likely problems with a model, and the method to start from."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from stages.common.base.errors import StageError
from stages.common.graph.refusal import refuse, refuse_non_finite_weights
from stages.common.graph.walk import all_nodes
from stages.common.graph.weights import WeightedNode, parameters_in_attributes
from stages.common.model import sessions
from stages.inspect.methods import OPSET, Prediction, too_old

WORTHWHILE = 0.9
"""Largest INT8 size over fp32 size for which a method is worth trying: the default of gate.max_size_ratio."""

DECODERS = frozenset({"BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"})


def refusal(model: ir.Model, name: str) -> str:
    """Why the pipeline refuses a model that loads, which the sentence calls `name`; empty if it accepts the model."""
    try:
        refuse(model, name)
        refuse_non_finite_weights(model, name)
    except StageError as error:
        return str(error)
    for value in model.graph.outputs:
        if value.dtype == ir.DataType.BFLOAT16:
            return f"Its output '{value.name}' is bfloat16, which NumPy cannot hold. Cast it to float32 in the model."
    return ""


def sentences(model: ir.Model, nodes: Sequence[WeightedNode]) -> list[str]:
    """One sentence per likely problem."""
    troubles = []
    types = {node.op_type for node in nodes}
    if learnt := parameters_in_attributes(model):
        troubles.append(
            f"{', '.join(learnt)} keep their parameters in attributes, which have no INT8 form: they stay float."
        )
    if decoders := sorted({node.op_type for node in all_nodes(model)} & DECODERS):
        decoder = f"{decoders[0]} contains a whole decoder, whose speed depends on the tokens that it generates"
        troubles.append(f"{decoder}: compare these too.")
    inside = [node for node in nodes if node.graph]
    if inside:
        share = sum(node.nbytes for node in inside) / max(1, sum(node.nbytes for node in nodes))
        troubles.append(
            f"{share:.0%} of the weights are in subgraphs (bodies of If, Loop, Scan); check that nodes.csv lists them."
        )
    if types & {"Conv", "ConvTranspose"}:
        troubles.append("Conv is slower in INT8 with dynamic ranges, so dynamic keeps it float; static quantizes it.")
    dtypes = {weight.dtype for node in nodes for weight in node.weights}
    if "float16" in dtypes:
        troubles.append(
            "Weights in float16: INT8 kernels take float32, so quantize converts the model to float32; weights that "
            "stay float take twice the space."
        )
    if other := sorted(dtypes & {"bfloat16", "float64"}):
        troubles.append(f"Weights in {', '.join(other)}: INT8 kernels take float32. Export the model in float32.")
    if tied := _tied(nodes):
        troubles.append(
            f"The weight '{tied}' is shared by several nodes (a tied embedding): quantize all of them or none."
        )
    if "GRU" in types or "RNN" in types:
        troubles.append("GRU and RNN have no INT8 kernel on CPUs: only method stored makes them smaller.")
    if too_old(model):
        troubles.append(
            f"Opset {model.opset_imports.get('')} cannot be converted to {OPSET}, which dynamic and static need: "
            "export the model again, or use method stored."
        )
    return troubles


def batch_dependence(session: ort.InferenceSession, feed: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence if the answer for a sample depends on the others in its batch, or if the model takes no single sample.

    Raises:
        StageError: the model does not run on the feed.
    """
    together = sessions.answers(session, feed, name="it")
    if any(array.ndim == 0 or len(array) != 2 for array in feed.values()):
        return []
    try:
        alone = sessions.answers(session, {name: array[:1] for name, array in feed.items()}, name="it")
    except StageError:
        return ["The model does not run on one sample: its batch is fixed, or axis 0 of its inputs is not the batch."]
    for name, array in together.items():
        if array.dtype.kind == "f" and array.ndim and len(array) == 2 and array[:1].shape == alone[name].shape:
            scale = float(np.abs(array).max(initial=0))
            if np.isfinite(scale) and not np.allclose(array[:1], alone[name], rtol=0, atol=1e-3 * scale):
                return [f"The output '{name}' of a sample depends on the others in its batch, even in fp32."]
    return []


def start_with(predictions: Sequence[Prediction], nodes: Sequence[WeightedNode], mb: float) -> Prediction | None:
    """The method to start from; None if no method makes the file smaller by a tenth.

    This is static if Conv has most of the weights, else dynamic, else the method with the smallest file.
    """
    worthwhile = {
        prediction.method: prediction
        for prediction in predictions
        if prediction.nodes and prediction.mb <= WORTHWHILE * mb
    }
    if not worthwhile:
        return None
    conv = sum(node.nbytes for node in nodes if node.op_type == "Conv")
    if 2 * conv > sum(node.nbytes for node in nodes) and "static" in worthwhile:
        return worthwhile["static"]
    return worthwhile.get("dynamic") or min(worthwhile.values(), key=lambda prediction: prediction.mb)


def _tied(nodes: Sequence[WeightedNode]) -> str:
    """The first weight that operators of different types read; empty if no weight is shared like that."""
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for weight in node.weights:
            readers.setdefault(weight.name, set()).add(node.op_type)
    return next((name for name, types in readers.items() if len(types) > 1), "")
