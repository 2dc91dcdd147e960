"""What the stage reads: both models, the evaluation data, and the findings of the stages before."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from stages.bench.latency import Pair
from stages.common.base import files, paths
from stages.common.base.errors import MissingInputError, StageError
from stages.common.base.params import Params
from stages.common.data import feeding
from stages.common.data.evaldata import EvalData
from stages.common.model import model_file
from stages.common.model.sessions import open_session

_NO_INT8 = ("TreeEnsemble", "LinearClassifier", "LinearRegressor", "SVM")


@dataclass(frozen=True)
class Subject:
    """The models to time, and how they are fed.

    Attributes:
        models: fp32 and INT8.
        data: the evaluation data.
        batch: samples in one call: serving.batch_size, or what the model prescribes.
        fixed: why no other batch size can be measured, or nothing.
    """

    models: Pair
    data: EvalData
    batch: int
    fixed: str


@dataclass(frozen=True)
class Findings:
    """What other stages found.

    Attributes:
        machine_id: of this machine.
        machine: its CPU and instruction set in words.
        quantized: whether quantize changed anything.
        parity_passed: the verdict of parity.
    """

    machine_id: str
    machine: str
    quantized: bool
    parity_passed: bool


def subject(params: Params) -> Subject:
    """Look at the models and the evaluation data.

    Raises:
        StageError: one is missing or does not load, or the data do not fit.
    """
    for path, made_by in ((paths.FP32_MODEL, "export"), (paths.INT8_MODEL, "quantize")):
        if not path.exists():
            raise MissingInputError(path, made_by)
    data = EvalData()
    session = open_session(paths.FP32_MODEL)
    feeding.check_fit(session, data.inputs, data.layout)
    prescribed = feeding.fixed_batch(session, data.layout)
    fixed = ""
    if data.layout == "feeds":
        fixed = "the evaluation data are whole feeds, given to the model as they are (export.eval_layout is feeds)"
    elif prescribed is not None:
        fixed = f"the model's inputs fix the batch at {prescribed}"
    return Subject(
        models=(paths.FP32_MODEL, paths.INT8_MODEL),
        data=data,
        batch=feeding.feed_batch(session, data.layout, params.serving.batch_size),
        fixed=fixed,
    )


def findings() -> Findings:
    """Read the metrics of host, quantize and parity.

    Raises:
        StageError: one is missing, or lacks what bench needs.
    """
    host = files.read_json(paths.HOST, "host")
    quantize = files.read_json(paths.QUANTIZE, "quantize")
    parity = files.read_json(paths.PARITY, "parity")
    try:
        return Findings(
            machine_id=host["machine_id"],
            machine=f"{host['cpu']['model']}, {host['cpu']['isa']}",
            quantized=quantize["status"] == "quantized",
            parity_passed=parity["passed"] is True,
        )
    except (KeyError, TypeError) as error:
        raise StageError(f"metrics/ lacks the key {error}. Run dvc repro to write all metrics anew.") from error


def without_int8(model: Path) -> list[str]:
    """The trees and linear models of ai.onnx.ml in `model`, by operator type: they have no INT8 form."""
    nodes = onnx.load(model, load_external_data=False).graph.node
    return sorted({node.op_type for node in nodes if node.op_type.startswith(_NO_INT8)})


def sizes_mb(models: Pair) -> tuple[float, float]:
    """Sizes of fp32 and INT8 on disk in MB (1e6 bytes), external data included."""
    fp32, int8 = (model_file.size_mb(path) for path in models)
    return fp32, int8
