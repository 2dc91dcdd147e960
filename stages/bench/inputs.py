"""What bench reads and times: both models, samples of the evaluation data, and an identity model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from stages.common.base import files, paths
from stages.common.base.errors import MissingInputError, StageError
from stages.common.base.params import Params
from stages.common.data import feeding
from stages.common.data.evaldata import EvalData
from stages.common.model.sessions import open_session
from stages.common.timing.feed import StoredFeed, store
from stages.common.timing.launches import ModelPair, draw_feed

_NO_INT8 = ("TreeEnsemble", "LinearClassifier", "LinearRegressor", "SVM")


@dataclass(frozen=True)
class HostSummary:
    """What host wrote: the machine's identifier, CPU and instruction set as text, and cores."""

    machine_id: str
    name: str
    cores: float


@dataclass(frozen=True)
class Inputs:
    """The models to time, and how they are fed.

    Attributes:
        sha256: the hash of each model with its external data.
        batch: samples in one call: serving.batch_size, or the batch that the model fixes.
        one_batch: why this batch size is the only one that can be measured; empty if others can be measured too.
        without_int8: operator types of the fp32 model without an INT8 form: trees and linear models of ai.onnx.ml.
    """

    models: ModelPair
    sha256: tuple[str, str]
    data: EvalData
    batch: int
    one_batch: str
    machine: HostSummary
    without_int8: list[str]

    @property
    def same_model(self) -> bool:
        """Whether both files are identical, as quantize leaves them if nothing could be quantized."""
        return self.sha256[0] == self.sha256[1]

    def feed(self, samples: int, seed: int, folder: Path) -> StoredFeed:
        """A feed of the evaluation data, see `draw_feed`."""
        return draw_feed(self.data, samples, seed, folder)


def read(params: Params) -> Inputs:
    """Read both models, the evaluation data and the host's file.

    Raises:
        StageError: a file is missing or does not load, or the data does not fit the model.
    """
    models = ModelPair(paths.FP32_MODEL, paths.INT8_MODEL)
    for path, made_by in zip(models, ("export", "quantize"), strict=True):
        if not path.exists():
            raise MissingInputError(path, made_by)
    machine = _host()
    data = EvalData()
    session = open_session(models.fp32)
    feeding.check_fit(session, data.inputs, data.layout)
    prescribed = feeding.fixed_batch(session, data.layout)
    one_batch = ""
    if data.layout == "feeds":
        one_batch = "the evaluation data is whole feeds (export.eval_layout is feeds)"
    elif prescribed is not None:
        one_batch = f"the model's inputs fix the batch at {prescribed}"
    nodes = onnx.load(models.fp32, load_external_data=False).graph.node
    return Inputs(
        models=models,
        sha256=(files.sha256(models.fp32), files.sha256(models.int8)),
        data=data,
        batch=feeding.feed_batch(session, data.layout, params.serving.batch_size),
        one_batch=one_batch,
        machine=machine,
        without_int8=sorted({node.op_type for node in nodes if node.op_type.startswith(_NO_INT8)}),
    )


def _host() -> HostSummary:
    host = files.read_json(paths.HOST, "host")
    try:
        cpu = host["cpu"]
        return HostSummary(host["machine_id"], f"{cpu['model']}, {cpu['isa']}", float(cpu["cores"]))
    except (KeyError, TypeError) as error:
        raise StageError(f"{paths.HOST.as_posix()} lacks the key {error}. Run host again.") from error


class IdentityModel(NamedTuple):
    """A model of a single Identity node on one float, and its feed.

    It shows what a call that computes nothing costs, and how much memory ONNX Runtime needs for itself.
    """

    model: str
    feed: StoredFeed


def write_identity(folder: Path) -> IdentityModel:
    """Write the identity model and its feed."""
    value: dict[str, Any] = {"elem_type": TensorProto.FLOAT, "shape": [1]}
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", **value)],
        [helper.make_tensor_value_info("y", **value)],
    )
    path = str(folder / "identity.onnx")
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), path)
    return IdentityModel(path, store(folder / "identity.npz", {"x": np.zeros(1, np.float32)}, samples=1))
