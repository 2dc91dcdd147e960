"""A project in its own folder (two models, evaluation data, params), and the stage run in it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, parser

from stages.common.base import params, paths
from stages.common.data import evaldata
from stages.parity import figures, screen, stage


def graph(body: str) -> ModelProto:
    """A model of opset 17 from the textual form of a graph, `(inputs) => (outputs) { nodes }`."""
    text = f'<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]> test {body}'
    model = parser.parse_model(text)
    onnx.checker.check_model(model)
    return model


@dataclass
class Project:
    """A project in the working directory."""

    capture: pytest.CaptureFixture[str]

    @staticmethod
    def write(
        fp32: ModelProto,
        int8: ModelProto,
        inputs: Mapping[str, np.ndarray],
        labels: np.ndarray | None = None,
        layout: evaldata.Layout = "samples",
        tree: Mapping[str, Any] | None = None,
    ) -> None:
        """Write models, evaluation data and `tree` as params.yaml; every sample is judged."""
        paths.ARTIFACTS.mkdir(exist_ok=True)
        onnx.save(fp32, paths.FP32_MODEL)
        onnx.save(int8, paths.INT8_MODEL)
        shutil.rmtree(paths.EVAL, ignore_errors=True)
        evaldata.write(paths.EVAL, inputs, labels, layout, seed=0)
        np.save(paths.EVAL / "judge.npy", np.arange(len(next(iter(inputs.values())))))
        Project.params(tree or {})

    @staticmethod
    def params(tree: Mapping[str, Any]) -> None:
        """Write params.yaml as JSON, which is YAML too; unless `tree` sets advice_seconds, no variant is tried."""
        tree = {**tree, "parity": {"advice_seconds": None, **tree.get("parity", {})}}
        paths.PARAMS.write_text(json.dumps(tree), encoding="utf-8")

    def run(self) -> dict[str, Any]:
        """Run the stage; return the details, with `passed` and `diff` of the headlines."""
        result = stage.run(params.load())
        figures.write(result)
        print(screen.render(result))
        headlines, details = (json.loads(path.read_text("utf-8")) for path in (paths.PARITY, paths.PARITY_DETAILS))
        return {**details, "passed": headlines["passed"], "diff": headlines["diff"]}

    def printed(self) -> str:
        """The text printed since the last call."""
        return self.capture.readouterr().out


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    """An empty project as the working directory."""
    monkeypatch.chdir(tmp_path)
    return Project(capsys)
