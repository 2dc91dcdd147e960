"""Models of every framework are exported, with their drift; what no converter takes is refused in a sentence."""

import importlib
import re
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.data.evaldata import EvalData
from tests import sources
from tests.export import models
from tests.export.conftest import Run


def built(name: str) -> models.Built:
    """The model, inputs and labels of a callable of `tests.export.models`."""
    returned: models.Built = getattr(models, name)()
    return returned


def free_batch() -> bool:
    session = ort.InferenceSession(paths.FP32_MODEL)
    return all(not isinstance(value.shape[0], int) for value in (*session.get_inputs(), *session.get_outputs()))


@pytest.mark.parametrize(
    ("name", "framework", "max_abs", "flips"),
    [
        ("mixed_columns", "scikit-learn", 1e-6, 0),
        ("missing_text", "scikit-learn", 1e-6, 0),
        ("flags_beside_text", "scikit-learn", 1e-6, 0),
        ("integer_first", "scikit-learn", 1e-6, 0),
        ("integer_first_scaled", "scikit-learn", 1e-6, 0),
        ("calibrated", "scikit-learn", 1e-5, 0),
        ("search", "scikit-learn", 1e-5, 0),
        ("vote", "scikit-learn", 1e-5, 0),
        ("histogram_classifier", "scikit-learn", 1e-6, 0),
        ("histogram_regressor", "scikit-learn", 1e-3, None),
        ("prices", "scikit-learn", 0.1, None),
        ("transformed_target", "scikit-learn", 1e-3, None),
        ("scaled_target", "scikit-learn", 0.1, None),
        ("xgboost_classifier", "XGBoost", 1e-6, 0),
        ("xgboost_frame", "XGBoost", 1e-6, 0),
        ("xgboost_regressor", "XGBoost", 1e-3, None),
        ("xgboost_booster", "XGBoost", 1e-6, 0),
        ("xgboost_in_a_pipeline", "scikit-learn", 1e-5, 0),
        ("lightgbm_classifier", "LightGBM", 0.05, 0),
        ("lightgbm_flags", "LightGBM", 0.05, 0),
        ("lightgbm_frame", "LightGBM", 0.05, 0),
        ("numbered_columns", "XGBoost", 1e-6, 0),
        ("lightgbm_booster", "LightGBM", 0.05, 0),
        ("lightgbm_neighbours", "LightGBM", 1e-5, None),
        ("lightgbm_booster_of_neighbours", "LightGBM", 1e-5, None),
        ("xgboost_neighbours", "XGBoost", 1e-5, None),
        ("lightgbm_in_a_pipeline", "scikit-learn", 1e-2, None),
    ],
)
def test_the_export_answers_as_its_source(
    run: Run, name: str, framework: str, max_abs: float, flips: int | None
) -> None:
    metrics = run(f"tests.export.models:{name}")
    assert metrics["details"]["source"]["framework"] == framework
    assert 0 <= metrics["drift"]["max_abs"] < max_abs
    assert metrics["drift"]["flips"] == flips
    assert free_batch()


@pytest.mark.torch
@pytest.mark.parametrize("name", ["cnn", "exported_program", "onnx_program", "tokens"])
def test_the_export_answers_as_its_pytorch_module(run: Run, name: str) -> None:
    metrics = run(f"tests.export.torch_models:{name}")
    assert metrics["details"]["source"]["framework"] == "PyTorch"
    assert 0 < metrics["drift"]["max_abs"] < 1e-4
    assert metrics["drift"]["flips"] == 0
    assert free_batch()
    assert str(Path.cwd()).encode() not in paths.FP32_MODEL.read_bytes()
    assert b"site-packages" not in paths.FP32_MODEL.read_bytes()


@pytest.mark.torch
def test_two_pytorch_exports_have_the_same_bytes(run: Run) -> None:
    run("tests.export.torch_models:cnn")
    first = paths.FP32_MODEL.read_bytes()
    run("tests.export.torch_models:cnn")
    assert paths.FP32_MODEL.read_bytes() == first


@pytest.mark.torch
def test_tokens_and_masks_keep_their_types(run: Run) -> None:
    metrics = run("tests.export.torch_models:tokens")
    assert {array.name: array.dtype for array in EvalData().inputs} == {"ids": "int64", "mask": "bool"}
    assert len(metrics["details"]["drift"]) == 2
    assert "opset 18 or later" in metrics["details"]["notes"][0]


@pytest.mark.torch
def test_a_batch_fixed_in_the_code_is_refused(run: Run) -> None:
    with pytest.raises(StageError, match=r"cannot export Fixed with a free batch .* Use x\.shape\[0\]"):
        run("tests.export.torch_models:fixed_batch")


@pytest.mark.torch
def test_data_of_double_precision_is_rounded_and_said(run: Run) -> None:
    notes = run("tests.export.torch_models:double_data")["details"]["notes"]
    assert notes[0].startswith("The input 'input' is float64 and was rounded to float32")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "message"), [("bfloat16", r"bfloat16, .* model\.float"), ("script", "is TorchScript")]
)
def test_modules_that_the_exporter_cannot_take_are_refused(run: Run, name: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        run(f"tests.export.torch_models:{name}")


def test_an_opset_that_a_converter_finds_too_old_is_the_advice(run: Run) -> None:
    with pytest.raises(StageError, match=r"Set export\.opset above 17, or export it yourself"):
        run("tests.export.models:imputed")
    assert run("tests.export.models:imputed", opset=18)["eval"]["samples"] == 40


def test_isotonic_calibration_drifts_and_the_drift_says_so(run: Run) -> None:
    metrics = run("tests.export.models:isotonic")
    drift = metrics["details"]["drift"]["probabilities"]
    assert metrics["drift"]["max_abs"] == drift["max_abs"] > 1e-3
    assert 0 < drift["mean_abs"] < drift["max_abs"]
    assert 0 < drift["nrmse"] < 1
    assert 20 < drift["sqnr_db"] < 100


def test_missing_text_is_said(run: Run) -> None:
    notes = run("tests.export.models:missing_text")["details"]["notes"]
    assert any("'city' has missing values" in note and "takes the text 'nan'" in note for note in notes)
    assert any(
        re.search(r"'age' is float64 and was rounded to float32, by up to \de-08 of a value", note) for note in notes
    )
    assert not any("'score'" in note for note in notes)


def test_many_rounded_columns_are_one_note(run: Run) -> None:
    (note,) = run("tests.sources:margins_in_a_pipeline")["details"]["notes"][:1]
    assert note.startswith(
        "2 columns ('mean symmetry' to 'mean concavity') are float64 and were rounded to float32, by"
    )


def test_the_labels_of_lightgbm_have_a_free_batch(run: Run) -> None:
    run("tests.export.models:lightgbm_classifier")
    label = ort.InferenceSession(paths.FP32_MODEL).get_outputs()[0]
    assert not isinstance(label.shape[0], int)


def test_a_path_returned_by_a_callable(run: Run) -> None:
    assert run("tests.export.models:path_of_a_model")["details"]["source"]["framework"] == "ONNX"


@pytest.mark.parametrize("suffix", ["skops", "joblib", "pkl"])
def test_an_estimator_in_a_file(run: Run, tmp_path: Path, suffix: str) -> None:
    model, frame, label = built("mixed_columns")
    if suffix == "skops":
        import skops.io

        skops.io.dump(model, f"model.{suffix}")
    else:
        joblib.dump(model, f"model.{suffix}")
    frame.assign(sold=label, unused=1).to_csv("data.csv", index=False)
    keys = {"eval_data": "data.csv", "labels": "sold"}
    if suffix != "skops":
        with pytest.raises(StageError, match=rf"model\.{suffix} is a pickle, .* export\.allow_pickle to true"):
            run(f"model.{suffix}", **keys)
        keys["allow_pickle"] = True  # type: ignore[assignment]
    metrics = run(f"model.{suffix}", **keys)
    assert metrics["drift"]["max_abs"] < 1e-6
    np.testing.assert_array_equal(EvalData().labels(np.arange(300)), label)
    assert len(EvalData().inputs) == 6


@pytest.mark.parametrize(("name", "file"), [("xgboost_booster", "model.ubj"), ("lightgbm_booster", "model.txt")])
def test_a_booster_in_its_own_file(run: Run, name: str, file: str) -> None:
    booster, x, y = built(name)
    booster.save_model(file)
    np.savez("data.npz", X=x, labels=y)
    metrics = run(file, eval_data="data.npz")
    assert metrics["drift"]["max_abs"] < 0.05
    assert metrics["drift"]["flips"] == 0


def test_a_single_array_and_a_parquet_file(run: Run, tmp_path: Path) -> None:
    onnx.save(sources.linear(), "mine.onnx")
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.save("x.npy", x)
    assert run("mine.onnx", eval_data="x.npy")["eval"]["samples"] == 20
    import pandas as pd

    pd.DataFrame(x, columns=list("abcd")).assign(labels=1).to_parquet("x.parquet")
    metrics = run("mine.onnx", eval_data="x.parquet")
    assert metrics["details"]["eval"]["labels"]
    np.testing.assert_array_equal(EvalData().read(np.arange(20))["x"], x)


def by_column() -> onnx.ModelProto:
    """A model with an input of ids, one of text and one of a float per sample."""
    kinds = {"ids": onnx.TensorProto.INT64, "city": onnx.TensorProto.STRING, "age": onnx.TensorProto.FLOAT}
    infos = [onnx.helper.make_tensor_value_info(name, kind, ["n", 1]) for name, kind in kinds.items()]
    outputs = [onnx.helper.make_tensor_value_info(f"{name}_out", kind, ["n", 1]) for name, kind in kinds.items()]
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    graph = onnx.helper.make_graph(nodes, "columns", infos, outputs)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)


def table(**columns: Any) -> str:
    import pandas as pd

    plain: dict[str, Any] = {"ids": [2**40, 2, 3, 4], "city": ["Ulm", "Bern", "Ulm", "x"], "age": [0.1, 2, 3, 4]}
    plain |= columns
    pd.DataFrame({name: values for name, values in plain.items() if values is not None}).to_csv("x.csv", index=False)
    return "x.csv"


def test_columns_of_a_table_become_inputs_in_the_types_of_the_model(run: Run) -> None:
    onnx.save(by_column(), "mine.onnx")
    metrics = run("mine.onnx", eval_data=table())
    read = EvalData().read(np.arange(4))
    assert read["ids"].tolist() == [[2**40], [2], [3], [4]]
    assert read["city"].tolist() == [["Ulm"], ["Bern"], ["Ulm"], ["x"]]
    assert read["age"].dtype == np.float32
    assert any("The column 'age' is float64 and was rounded" in note for note in metrics["details"]["notes"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"age": None}, "has no column 'age', which the model takes; it has 'ids', 'city'"),
        ({"ids": [1.5, 2, 3, 4]}, r"'ids' of the evaluation data holds 1\.5 in row 0, which int64"),
        ({"ids": [1, None, 3, 4]}, "'ids' of the evaluation data has a missing value in row 1. .* expects int64"),
        ({"city": ["a", None, "b", "c"]}, "'city' of the evaluation data has a missing value in row 1. Text has no"),
        ({"age": ["young"] * 4}, "'age' of the evaluation data is .*, and the model input 'age' expects float32"),
        ({"age": [2**24 + 1, 2, 3, 4]}, "'age' of the evaluation data holds 16777217 in row 0, which float32"),
        ({"ids": [], "city": [], "age": []}, "The evaluation data has no rows"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(run: Run, columns: dict[str, Any], message: str) -> None:
    onnx.save(by_column(), "mine.onnx")
    with pytest.raises(StageError, match=message):
        run("mine.onnx", eval_data=table(**columns))


def test_a_conversion_that_answers_something_else_is_refused(run: Run) -> None:
    """onnxmltools writes a LightGBM forest of linear leaves as if they were constant."""
    with pytest.raises(StageError, match=r"gives different answers from its source: 'variable' moves by 0\.\d+ times"):
        run("tests.export.models:lightgbm_linear_leaves")
    assert not paths.FP32_MODEL.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "tests.export.models:odd_target",
            r"inverted by back, .* can write np\.exp, .* Export the reg",
        ),
        (
            "tests.export.models:three_dimensional",
            r"has the shape \[269, 30, 1\]\. Return a dense two-dimensional array",
        ),
        ("tests.export.models:no_rows", "The evaluation data has no rows"),
        ("tests.export.models:unfitted", r"cannot export Pipeline \(.*\)\. Fit it first\."),
        (
            "tests.export.models:lightgbm_unfitted",
            "export.source returns LGBMClassifier, which is not fitted. Fit it first",
        ),
        (
            "tests.export.models:xgboost_unfitted",
            "export.source returns XGBRegressor, which is not fitted. Fit it first",
        ),
        ("tests.export.models:too_few_labels", r"'X' 269, 'labels' 268\. Give one row per sample"),
        (
            "tests.export.models:missing_numbers",
            "NaN or infinite for evaluation sample 7 in fp32. The evaluation data has NaN in 'X'",
        ),
    ],
)
def test_what_no_converter_takes_is_refused(run: Run, source: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        run(source)
    assert not paths.FP32_MODEL.exists()


def test_three_dimensional_inputs_and_two_outputs(run: Run) -> None:
    assert run("tests.export.models:sequences")["eval"]["samples"] == 40
    session = ort.InferenceSession(paths.FP32_MODEL)
    steps, y = session.run(None, EvalData().read(np.arange(40)))
    assert (steps.shape, y.shape) == ((40, 5, 3), (40, 1, 3))


def test_files_that_are_not_what_their_suffix_says(run: Run, tmp_path: Path) -> None:
    np.save("x.npy", np.ones((8, 4), np.float32))
    for suffix, reader in (("ubj", "XGBoost"), ("txt", "LightGBM"), ("skops", "skops"), ("joblib", "joblib")):
        Path(f"bad.{suffix}").write_bytes(b"nothing of the kind")
        with pytest.raises(StageError, match=rf"bad\.{suffix} is not a model that {reader} can read"):
            run(f"bad.{suffix}", eval_data="x.npy", allow_pickle=True)


def test_labels_that_are_not_there_are_named(run: Run) -> None:
    onnx.save(by_column(), "mine.onnx")
    with pytest.raises(StageError, match=r"export\.labels is sold, .* it has 'ids', 'city', 'age'"):
        run("mine.onnx", eval_data=table(), labels="sold")


def test_a_missing_package_is_named_with_its_install_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    present = importlib.import_module

    def absent(name: str, package: str | None = None) -> Any:
        if name == "onnxmltools":
            raise ModuleNotFoundError("No module named 'onnxmltools'", name="onnxmltools")
        return present(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    message = r"Exporting an XGBoost model needs the package onnxmltools, .* pip install xgboost onnxmltools"
    with pytest.raises(StageError, match=message):
        run("tests.export.models:xgboost_classifier")
