"""Every kind of source through the whole pipeline, by DVC, in one repository: trained models on scikit-learn's data.

The examples do the same for a data frame with text, and for an ONNX model of a callable (test_examples.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.common.base import paths
from tests import sources
from tests.export import models, torch_models
from tests.pipeline.conftest import Project, clone

QUANTIZED, NOTHING = "quantized", "nothing_to_quantize"

Keys = dict[str, Any]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository in which every test of this file runs its model."""
    return clone(tmp_path_factory.mktemp("shared") / "project")


def returned(name: str, module: str = "models") -> Callable[[Path], Keys]:
    """A source that is a callable of the tests."""
    return lambda _folder: {"source": f"tests.export.{module}:{name}"}


def on_columns() -> tuple[Any, Any]:
    """An MLP trained on a data frame, and a table of evaluation data with its labels."""
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), MLPClassifier((64,), random_state=0, max_iter=60, tol=1e-2))
    return model.fit(x[:300], y[:300]), x[300:].assign(benign=y[300:])


def skops_file(folder: Path) -> Keys:
    import skops.io

    model, table = on_columns()
    skops.io.dump(model, folder / "mine.skops")
    table.to_csv(folder / "mine.csv", index=False)
    return {"source": "models/mine.skops", "eval_data": "models/mine.csv", "labels": "benign"}


def joblib_file(folder: Path) -> Keys:
    model, table = on_columns()
    joblib.dump(model, folder / "mine.joblib")
    table.to_parquet(folder / "mine.parquet")
    data = {"eval_data": "models/mine.parquet", "labels": "benign"}
    return {"source": "models/mine.joblib", "allow_pickle": True, **data}


def booster_file(name: str, file: str) -> Callable[[Path], Keys]:
    def save(folder: Path) -> Keys:
        booster, x, y = getattr(models, name)()
        booster.save_model(folder / file)
        np.savez(folder / "mine.npz", X=x, labels=y)
        return {"source": f"models/{file}", "eval_data": "models/mine.npz"}

    return save


def exported_program_file(folder: Path) -> Keys:
    import torch

    program, x, y = torch_models.exported_program()
    torch.export.save(program, folder / "mine.pt2")
    np.savez(folder / "mine.npz", input=x, labels=y)
    return {"source": "models/mine.pt2", "eval_data": "models/mine.npz"}


def external_data(folder: Path) -> Keys:
    """An ONNX model with its weights in a file beside it, and its data in a folder of arrays."""
    from skl2onnx import to_onnx

    model, x, y = sources.small_mlp(0)
    converted = to_onnx(model, x[:1], options={id(model): {"zipmap": False}}, target_opset=17)
    onnx.save(converted, folder / "mine.onnx", save_as_external_data=True, location="mine.bin", size_threshold=1024)
    (folder / "data").mkdir(exist_ok=True)
    np.save(folder / "data" / "X.npy", x)
    np.save(folder / "data" / "labels.npy", y)
    return {"source": "models/mine.onnx", "eval_data": "models/data"}


def path_of_a_file(folder: Path) -> Keys:
    external_data(folder)
    code = """\
import numpy as np

def build():
    return "models/mine.onnx", np.load("models/data/X.npy"), np.load("models/data/labels.npy")
"""
    (folder / "given.py").write_text(code)
    return {"source": "models.given:build"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "source", "status"),
    [
        pytest.param(*case, id=name, marks=pytest.mark.torch if case[0] == "PyTorch" else pytest.mark.extended)
        for name, case in {
            "estimator": ("scikit-learn", returned("search"), QUANTIZED),
            "skops": ("scikit-learn", skops_file, QUANTIZED),
            "joblib": ("scikit-learn", joblib_file, QUANTIZED),
            "xgboost": ("XGBoost", returned("xgboost_classifier"), NOTHING),
            "json": ("XGBoost", booster_file("xgboost_booster", "mine.json"), NOTHING),
            "lightgbm": ("LightGBM", returned("lightgbm_classifier"), NOTHING),
            "txt": ("LightGBM", booster_file("lightgbm_booster", "mine.txt"), NOTHING),
            "external_data": ("ONNX", external_data, QUANTIZED),
            "path": ("ONNX", path_of_a_file, QUANTIZED),
            "module": ("PyTorch", returned("cnn", "torch_models"), QUANTIZED),
            "tokens": ("PyTorch", returned("tokens", "torch_models"), QUANTIZED),
            "exported_program": ("PyTorch", returned("exported_program", "torch_models"), QUANTIZED),
            "pt2": ("PyTorch", exported_program_file, QUANTIZED),
            "onnx_program": ("PyTorch", returned("onnx_program", "torch_models"), QUANTIZED),
        }.items()
    ],
)
def test_a_model_is_exported_quantized_judged_and_benched(
    shared: Project, framework: str, source: Callable[[Path], Keys], status: str
) -> None:
    keys: Keys = {"eval_data": None, "labels": "labels", "allow_pickle": False} | source(shared.root / "models")
    shared.set(export=keys)
    done = shared.run("dvc", "repro")
    assert f"from {framework}," in done.stdout
    export, quantize, parity, bench, gate = map(shared.metrics, ("export", "quantize", "parity", "bench", "gate"))
    assert export["eval"]["samples"] >= 200
    assert framework == "ONNX" or export["drift"]["max_abs"] < 0.05
    assert export["drift"]["flips"] == (None if framework == "ONNX" else 0)
    assert quantize["status"] == status
    assert parity["passed"] is True
    assert parity["task"]["int8"] > 0.8 or keys["source"].endswith("tokens")
    assert parity["judged"]["samples"] > 100
    # Two equal files are not timed against each other.
    assert (bench["latency"]["fp32_p50_ms"] is None) == (status == NOTHING)
    assert gate == {"open": True, "deploy": "fp32" if status == NOTHING else gate["deploy"]}
    fp32, int8 = ((shared.root / path).read_bytes() for path in (paths.FP32_MODEL, paths.INT8_MODEL))
    assert (fp32 == int8) == (status == NOTHING)
    assert set(shared.status()) == {"host", "gate"}  # these two run every time


@pytest.mark.slow
@pytest.mark.extended
def test_a_drift_beyond_the_tolerance_is_not_blamed_on_quantization(shared: Project) -> None:
    shared.set(export={"source": "tests.export.models:forest_behind_a_scaler", "eval_data": None})
    said = " ".join(shared.run("dvc", "repro").stdout.split())
    assert shared.metrics("export")["drift"]["max_abs"] > 0.04
    assert "already differs from its source on 'probabilities' (max_abs 0." in said
    assert "beyond parity.abs_tol 0.04: quantization is not the cause, and no setting of it helps." in said
