"""Inspect a model: read it, run it on generated inputs, clean it in memory, and predict what each method does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.common.data.feeding import generated_feed
from stages.common.graph import cleaning
from stages.common.graph.weights import WeightedNode, weighted_nodes
from stages.common.model import model_file, sessions
from stages.inspect import trouble
from stages.inspect.methods import Prediction, predict

SAMPLES = 2
"""Samples in a generated feed."""


@dataclass(frozen=True)
class Inspection:
    """A model, and what the pipeline would make of it.

    Attributes:
        mb: size on disk in MB (1e6 bytes), external data included.
        nodes: the nodes of the cleaned model that have a weight.
        predictions: one per method.
        start: the method to start from; None if no method makes the file smaller by a tenth.
        refused: why the pipeline would refuse the model; empty if it would accept it.
        trouble: sentences on likely problems.
    """

    path: Path
    model: ir.Model
    mb: float
    nodes: Sequence[WeightedNode]
    predictions: tuple[Prediction, ...]
    start: str | None
    refused: str
    trouble: tuple[str, ...]


def run(path: Path) -> Inspection:
    """Inspect a model.

    Raises:
        StageError: the file is missing, or is not an ONNX model.
    """
    if not path.exists():
        raise StageError(f"{path.as_posix()} does not exist. Give the path of an .onnx file.")
    model = model_file.read(path, "your own export")
    file_bytes, weights = path.stat().st_size, model_file.weight_bytes(model)
    if weights > file_bytes:  # they are external data
        file_bytes += weights
    failure, notes = _run(model, path)
    clean = cleaned(model)
    nodes = weighted_nodes(clean)
    clean_bytes = model_file.stored_bytes(clean)
    predictions = predict(clean, clean_bytes)
    start = trouble.start_with(predictions, nodes, clean_bytes / 1e6)
    return Inspection(
        path=path,
        model=model,
        mb=file_bytes / 1e6,
        nodes=nodes,
        predictions=predictions,
        start=start.method if start else None,
        refused=failure or trouble.refusal(clean, path.as_posix()),
        trouble=(*notes, *trouble.sentences(clean, nodes)),
    )


def cleaned(model: ir.Model) -> ir.Model:
    """The model as export would publish it, without the check against evaluation data."""
    for _, apply in cleaning.PASSES:
        try:
            model = apply(model.clone()).model
        except Exception:  # passes of onnx-ir raise anything; one that fails is not applied
            continue
    return model


def _run(model: ir.Model, path: Path) -> tuple[str, list[str]]:
    """Why ONNX Runtime does not load the model (empty if it does), and the findings of a run on generated inputs."""
    try:
        session = sessions.open_session(model, name=path.as_posix())
    except StageError as error:
        return str(error), []
    try:
        feed = generated_feed(session, SAMPLES, seed=0)
        return "", trouble.batch_dependence(session, feed)
    except StageError:
        return "", ["The model does not run on inputs generated from its declared shapes: try real inputs."]
