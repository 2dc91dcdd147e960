"""Small projects in folders of their own, to run the stage and its workers for real."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from stages.bench import footprint
from stages.common.base import paths
from stages.common.data import evaldata
from stages.common.timing import lock, summary
from tests import sources


def write_project(
    folder: Path, fp32: onnx.ModelProto, int8: onnx.ModelProto | None, data: dict[str, np.ndarray]
) -> None:
    """Write what bench reads; without `int8`, both files hold the same model."""
    (folder / paths.METRICS).mkdir(parents=True)
    evaldata.write(folder / paths.EVAL, data, None, "samples", seed=0)
    for path, model in ((paths.FP32_MODEL, fp32), (paths.INT8_MODEL, int8 or fp32)):
        onnx.save(model, folder / path)
    host = {"machine_id": "test", "cpu": {"model": "Model T", "isa": "avx2", "cores": 2}}
    (folder / paths.HOST).write_text(json.dumps(host), encoding="utf-8")


def quantized(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The dynamic INT8 form of `model`."""
    path = folder / "quantized.onnx"
    quantize_dynamic(model, path, weight_type=QuantType.QInt8)
    return onnx.load(path)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bench start the fewest processes that give every figure."""
    monkeypatch.setattr(summary, "MIN_LAUNCHES", 0)
    for name in ("REPEATS", "FEWEST"):
        monkeypatch.setattr(footprint, name, 2)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one Gemm, as the working directory, with a lock and a cache of controls of its own."""
    model = sources.linear(width=256, rows=256)
    data = {"x": np.random.default_rng(0).normal(size=(40, 256)).astype(np.float32)}
    write_project(tmp_path, model, quantized(model, tmp_path), data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of the tests' own: they neither wait for a bench on this machine nor delay one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(lock, "lock_file", lambda: tmp_path / "lock")
