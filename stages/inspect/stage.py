"""Inspect a model: read it, run it on generated inputs, clean it in memory, and predict what each method does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from stages.common.base.errors import StageError
from stages.common.data.feeding import generated_feed
from stages.common.graph import cleaning
from stages.common.graph.walk import all_nodes
from stages.common.graph.weights import WeightedNode, weighted_nodes
from stages.common.model import model_file, sessions
from stages.inspect import trouble
from stages.inspect.methods import Prediction, predict

SAMPLES = 2
"""In a generated feed."""


@dataclass(frozen=True)
class Inspection:
    """What a model contains, and what the pipeline would make of it.

    Attributes:
        inputs: type and shape by name; so are `outputs`.
        opsets: version by domain.
        mb: size on disk in MB (1e6 bytes), external data included.
        operators: number of nodes by type, most frequent first.
        weights: bytes of weights by operator type, largest first; shared weights count once.
        predictions: one per method.
        start: the method to start from; None if none makes the file smaller by a tenth.
        refused: why the pipeline would refuse the model; empty if it would not.
        trouble: sentences on likely problems.
    """

    path: Path
    inputs: dict[str, str]
    outputs: dict[str, str]
    opsets: dict[str, int]
    mb: float
    operators: dict[str, int]
    weights: dict[str, int]
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
    file_bytes = path.stat().st_size + _external_bytes(model, path)
    operators = Counter(node.op_type for node in all_nodes(model))
    failure, notes = _run(model, path)
    clean = cleaned(model)
    nodes = weighted_nodes(clean)
    clean_bytes = model_file.stored_bytes(clean)
    predictions = predict(clean, clean_bytes)
    start = trouble.start_with(predictions, nodes, clean_bytes / 1e6)
    return Inspection(
        path=path,
        inputs={value.name or "": _declared(value) for value in model.graph.inputs if not value.is_initializer()},
        outputs={value.name or "": _declared(value) for value in model.graph.outputs},
        opsets={domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
        mb=file_bytes / 1e6,
        operators=dict(operators.most_common()),
        weights=_weight_bytes(nodes),
        predictions=predictions,
        start=start.method if start else None,
        refused=failure or trouble.refusal(clean),
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
        return "", ["It does not run on inputs generated from its declared shapes: try real inputs."]


def _external_bytes(model: ir.Model, path: Path) -> int:
    """The size of external data: that of the weights, if they do not fit into the file."""
    weights = model_file.weight_bytes(model)
    return weights if weights > path.stat().st_size else 0


def _declared(value: ir.Value) -> str:
    dtype = str(value.dtype).lower() if value.dtype is not None else "sequence or map"
    if value.shape is None:
        return dtype
    return f"{dtype} [{', '.join('?' if size is None else str(size) for size in value.shape)}]"


def _weight_bytes(nodes: Sequence[WeightedNode]) -> dict[str, int]:
    counted: set[str] = set()
    by_type: Counter[str] = Counter()
    for node in nodes:
        for weight in node.weights:
            if weight.name not in counted:
                counted.add(weight.name)
                by_type[node.op_type] += weight.nbytes
    return dict(by_type.most_common())
