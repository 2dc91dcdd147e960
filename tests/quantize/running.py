"""Run the stage on a model as a user does: in a folder of files, reading the files and the text that it leaves."""

import csv
import io
import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from stages.common.base import params, paths
from stages.common.data import evaldata
from stages.common.model import sessions
from stages.quantize import figures, screen, stage

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What the stage left behind."""

    folder: Path
    metrics: dict[str, Any]
    nodes: dict[str, dict[str, str]]
    said: str

    @property
    def fp32(self) -> ort.InferenceSession:
        return sessions.open_session(self.folder / paths.FP32_MODEL)

    @property
    def int8(self) -> ort.InferenceSession:
        return sessions.open_session(self.folder / paths.INT8_MODEL)

    @property
    def int8_model(self) -> onnx.ModelProto:
        return onnx.load(self.folder / paths.INT8_MODEL)

    def op_types(self) -> set[str]:
        """The operators of the main graph of the INT8 model."""
        return {node.op_type for node in self.int8_model.graph.node}

    def quantized(self) -> set[str]:
        """The names of the nodes that were quantized."""
        return {name for name, row in self.nodes.items() if row["quantized"] == "true"}

    def cosine(self, feed: Mapping[str, np.ndarray]) -> float:
        """The lowest cosine similarity of a float output on one feed."""
        return min(
            (
                cosine([a], [b])
                for a, b in zip(run(self.fp32, feed).values(), run(self.int8, feed).values(), strict=True)
                if a.dtype.kind == "f"
            ),
            default=1.0,
        )


class Bench:
    """A folder to run the stage in, with files as export writes them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.sections: dict[str, Any] = {}
        monkeypatch.chdir(folder)
        paths.ARTIFACTS.mkdir(exist_ok=True)

    def give(self, model: onnx.ModelProto | bytes, inputs: Arrays, layout: evaldata.Layout = "samples") -> None:
        """Put a model and its evaluation data in place."""
        content = model if isinstance(model, bytes) else model.SerializeToString()
        paths.FP32_MODEL.write_bytes(content)
        if paths.EVAL.exists():
            for file in sorted(paths.EVAL.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
        evaldata.write(paths.EVAL, inputs, None, layout, seed=0)

    def run(self, **knobs: Any) -> Outcome:
        """Run the stage with these keys of `quantize`, and with the other `sections`."""
        paths.PARAMS.write_text(yaml.safe_dump({"quantize": knobs, **self.sections}))
        said = io.StringIO()
        with redirect_stdout(said):
            result = stage.run(params.load())
            figures.write(result)
            print(screen.render(result))
        with paths.NODES.open(encoding="utf-8") as file:
            nodes = {row["node"]: row for row in csv.DictReader(file)}
        return Outcome(self.folder, json.loads(paths.QUANTIZE.read_text()), nodes, said.getvalue())


def run(session: ort.InferenceSession, feed: Mapping[str, np.ndarray]) -> Arrays:
    """Run the model once: every output as an array, by name."""
    return sessions.answers(session, feed, name="the model")


def cosine(floats: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Cosine similarity of all values at which the first is finite."""
    a = np.concatenate([array.ravel() for array in floats]).astype(np.float64)
    b = np.concatenate([array.ravel() for array in others]).astype(np.float64)
    a, b = a[np.isfinite(a)], b[np.isfinite(a)]
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    if length == 0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(a @ b) / length


def graph(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int | str, ...]],
    outputs: Mapping[str, tuple[int | str, ...] | None],
    weights: Mapping[str, np.ndarray],
    opset: int = 17,
    **model: Any,
) -> onnx.ModelProto:
    """A model of float inputs and outputs by name and shape."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(values, name) for name, values in weights.items()],
        ),
        **{"opset_imports": [helper.make_opsetid("", opset)], "ir_version": 8} | model,
    )


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Float32 values of a standard normal distribution."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
