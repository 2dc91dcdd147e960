"""Export end to end: what it writes from every kind of source, and what it refuses."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.data.evaldata import EvalData
from stages.common.model import sessions
from stages.export import fp32
from tests import sources
from tests.export.conftest import Run
from tests.onnx_models import ir_model
from tests.zoo import ZOO, needs_zoo


@pytest.mark.parametrize(
    ("source", "flips", "labels"),
    [
        ("tests.sources:small_mlp", 0, True),
        ("tests.sources:forest", 0, True),
        ("tests.sources:text_labels", 0, True),
        ("tests.sources:regressor", None, True),
        ("tests.sources:scaler", None, False),
    ],
)
def test_scikit_learn_models_export_with_their_drift(run: Run, source: str, flips: int | None, labels: bool) -> None:
    metrics = run(source)
    assert 0 <= metrics["drift"]["max_abs"] < (0.01 if source.endswith("regressor") else 1e-5)
    assert metrics["drift"]["flips"] == flips
    assert set(metrics["details"]["null_reasons"]) == ({"drift.flips"} if flips is None else set())
    data = EvalData()
    assert metrics["eval"]["samples"] == data.samples
    counts = metrics["details"]["eval"]
    assert counts["search"] + counts["judge"] == data.samples
    assert counts["labels"] == labels
    assert (data.labels(np.array([0])) is not None) == labels
    session = ort.InferenceSession(paths.FP32_MODEL)
    assert all("seq" not in output.type for output in session.get_outputs())


@pytest.mark.parametrize(
    ("source", "known"),
    [
        ("tests.sources:margins", {"flips"}),
        ("tests.sources:margins_in_a_pipeline", {"flips"}),
        ("tests.sources:clusters", {"flips"}),
        ("tests.sources:two_numbers", {"max_abs"}),
        ("tests.sources:several_labels", {"flips"}),
        ("tests.sources:texts", {"flips", "max_abs"}),
    ],
)
def test_every_kind_of_estimator_has_its_drift_or_the_reason_why_not(run: Run, source: str, known: set[str]) -> None:
    metrics = run(source)
    assert {key for key, value in metrics["drift"].items() if value is not None} == known
    assert set(metrics["details"]["null_reasons"]) == {f"drift.{key}" for key in {"max_abs", "flips"} - known}
    assert metrics["drift"]["flips"] in (0, None)
    assert (metrics["drift"]["max_abs"] or 0) < 1e-3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tests.sources:texts_in_a_column", "Pipeline.predict fails on the evaluation data"),
        ("tests.sources:leaves", "raised SystemExit: 3"),
        ("tests.sources:ragged", "The evaluation data for 'x' is not an array: .* Give every sample the same shape"),
        ("tests.sources:without_weights", "returned a model without its weights"),
        ("tests.sources:dice", "differs between two runs on the same samples"),
    ],
)
def test_sources_that_fail(run: Run, source: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        run(source)


def test_drift_is_measured_not_assumed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scikit-learn model whose answers differ from those of its export: the drift says by how much."""
    from sklearn.pipeline import Pipeline

    plain = Pipeline.predict_proba

    def moved(self: Pipeline, x: np.ndarray) -> np.ndarray:
        shifted: np.ndarray = plain(self, x)
        shifted[3] = np.roll(shifted[3], 1)
        return shifted

    monkeypatch.setattr(Pipeline, "predict_proba", moved)
    assert run("tests.sources:small_mlp")["drift"]["max_abs"] > 0.1


def test_columns_may_have_any_name_and_hold_numbers_as_objects(run: Run) -> None:
    assert run("tests.sources:odd_columns")["drift"]["max_abs"] < 1e-5
    inputs = ort.InferenceSession(paths.FP32_MODEL).get_inputs()
    assert [model_input.type for model_input in inputs] == ["tensor(float)", "tensor(string)", "tensor(int64)"]
    assert {array.name for array in EvalData().inputs} == {model_input.name for model_input in inputs}


def test_a_data_frame_becomes_one_input_a_column(run: Run) -> None:
    metrics = run("tests.sources:data_frame")
    assert metrics["drift"]["max_abs"] < 1e-5
    assert metrics["drift"]["flips"] == 0
    feed = EvalData().read(np.arange(2))
    assert {name: array.shape for name, array in feed.items()} == {"age": (2, 1), "city": (2, 1), "rooms": (2, 1)}
    assert [feed[name].dtype for name in ("age", "city", "rooms")] == [np.float32, object, np.int64]


def test_an_onnx_model_of_a_callable(run: Run) -> None:
    metrics = run("tests.sources:onnx_model")
    assert metrics["drift"] == {"max_abs": None, "flips": None}
    assert set(metrics["details"]["null_reasons"]) == {"drift.max_abs", "drift.flips"}
    assert onnx.load(paths.FP32_MODEL) == sources.linear()
    assert run("tests.sources:bare_array")["eval"]["samples"] == 8


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_a_path_with_its_data_in_files(run: Run, tmp_path: Path, kind: str) -> None:
    onnx.save(sources.linear(), tmp_path / "mine.onnx")
    arrays: dict[str, Any] = {
        "x": np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32),
        "labels": np.arange(20),
    }
    if kind == "npz":
        np.savez(tmp_path / "data.npz", **arrays)
    else:
        (tmp_path / "data").mkdir()
        for name, array in arrays.items():
            np.save(tmp_path / "data" / f"{name}.npy", array)
    metrics = run("mine.onnx", eval_data="data.npz" if kind == "npz" else "data")
    assert metrics["eval"]["samples"] == 20
    data = EvalData()
    np.testing.assert_array_equal(data.read(np.arange(20))["x"], arrays["x"])
    np.testing.assert_array_equal(data.labels(np.arange(20)), arrays["labels"])
    assert [file.name for file in Path("artifacts").iterdir() if file.name.startswith(".")] == []


def test_input_names_that_no_file_can_have(run: Run, tmp_path: Path) -> None:
    model = sources.linear()
    model.graph.input[0].name = model.graph.node[0].input[0] = "serving/x:0"
    onnx.save(model, tmp_path / "mine.onnx")
    named: dict[str, Any] = {"serving/x:0": np.ones((4, 4), np.float32)}
    np.savez(tmp_path / "data.npz", **named)
    run("mine.onnx", eval_data="data.npz")
    again = run("mine.onnx", eval_data="artifacts/eval/inputs")
    assert again["eval"]["samples"] == 4


def save(arrays: dict[str, Any]) -> str:
    np.savez("data.npz", **arrays)
    return "data.npz"


ONES = np.ones((4, 4), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": ONES[:0]}, "has no rows"),
        ({"x": ONES[:, :3]}, r"'x' expects the shape \[n, 4\], but the evaluation data has \[n, 3\]"),
        ({"x": ONES.astype(np.float64)}, "'x' expects float32, but the evaluation data is float64"),
        ({"z": ONES}, "no array for the model input 'x'; it holds 'z'"),
        ({"x": ONES, "z": ONES}, "holds 'z', which is not an input"),
        ({"x": np.float32(1)}, "'x' is a single number"),
        ({"x": ONES, "labels": np.arange(3)}, r"'x' 4, 'labels' 3\. Give one row per sample"),
        ({"x": np.array([[None]])}, "'x' holds Python objects"),
        ({}, "holds no input arrays"),
    ],
)
def test_evaluation_data_that_does_not_fit(
    run: Run, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    onnx.save(sources.linear(), tmp_path / "mine.onnx")
    with pytest.raises(StageError, match=message):
        run("mine.onnx", eval_data=save(arrays))
    assert not Path("artifacts/model.onnx").exists()
    assert [file.name for file in Path("artifacts").rglob("*")] == []


@pytest.mark.parametrize(
    ("source", "keys", "message"),
    [
        ("models.nowhere:build", {}, r"no module named models\.nowhere\. Put it under models/"),
        ("tests.sources:needs_a_package", {}, r"needs no_such_package, .* Add its package to models/requirements\.txt"),
        ("tests.export.unimportable:build", {}, r"needs no_such_package, .* Add its package to models/requirements"),
        ("tests.export.quits:build", {}, "^Importing export.source .* raised SystemExit: 0. Fix"),
        ("tests.sources:forrest", {}, "tests.sources has no function forrest; it has .*forest"),
        ("tests.sources:nothing", {}, "returned NoneType. Return .model, inputs. or .model, inputs, labels."),
        ("tests.sources:raises", {}, "raised RuntimeError: the data base is down"),
        (
            "tests.sources:other_framework",
            {},
            "is a function, which no converter supports. Use a model of scikit-learn, XGBoost",
        ),
        ("tests.sources:infinite", {}, "output 'y' is NaN or infinite for evaluation sample 5 in fp32"),
        ("tests.sources:onnx_model", {"eval_data": "x.npz"}, "returns the evaluation data itself"),
        ("nowhere.onnx", {"eval_data": "x.npz"}, "nowhere.onnx, which is not a file"),
        ("mine.onnx", {}, r"eval_data is null: .* or a \.csv with x"),
        ("mine.onnx", {"eval_data": "x.npz"}, "eval_data is x.npz, which does not exist"),
        ("mine.onnx", {"eval_data": "mine.onnx"}, "mine.onnx is not an .npz file"),
        ("garbage.onnx", {"eval_data": "x.npz"}, "garbage.onnx is not an ONNX model"),
        ("empty.onnx", {"eval_data": "x.npz"}, "empty.onnx is empty"),
    ],
)
def test_sources_that_are_refused(run: Run, tmp_path: Path, source: str, keys: dict[str, str], message: str) -> None:
    onnx.save(sources.linear(), tmp_path / "mine.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"\x00garbage" * 40)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(StageError, match=message):
        run(source, **keys)
    assert not Path("metrics").exists()


def test_a_weight_that_is_not_finite_is_named(run: Run, tmp_path: Path) -> None:
    model = sources.linear()
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[1, 2] = np.inf
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "W"))
    onnx.save(model, tmp_path / "mine.onnx")
    with pytest.raises(StageError, match=r"mine\.onnx: the output 'y' .* Its weight 'W' holds NaN or infinity"):
        run("mine.onnx", eval_data=save({"x": ONES}))


def test_a_mask_of_infinity_is_not_a_damaged_weight(run: Run, tmp_path: Path) -> None:
    model = sources.linear()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 0, -np.inf], np.float32), "mask"))
    model.graph.node[0].output[0] = "h"
    model.graph.node.append(onnx.helper.make_node("Add", ["h", "mask"], ["y"]))
    onnx.save(model, tmp_path / "mine.onnx")
    with pytest.raises(StageError, match=r"Its constant 'mask' masks with infinity: use a large finite number"):
        run("mine.onnx", eval_data=save({"x": ONES}))


def test_large_samples_are_served_in_small_batches(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 images at a time, with all that a network computes from them, took 17 GB."""
    served: list[int] = []
    plain = sessions.answers

    def answers(session: ort.InferenceSession, feed: Mapping[str, np.ndarray], *, name: str) -> dict[str, np.ndarray]:
        served.append(feed["x"].nbytes)
        return plain(session, feed, name=name)

    monkeypatch.setattr(sessions, "answers", answers)
    monkeypatch.setattr(fp32, "BATCH_BYTES", 100)
    assert run("tests.sources:onnx_model")["eval"]["samples"] == 40
    assert max(served) == 96


def test_a_model_with_a_fixed_batch_is_fed_in_it(run: Run, tmp_path: Path) -> None:
    model = sources.linear()
    for info in (model.graph.input[0], model.graph.output[0]):
        info.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, tmp_path / "mine.onnx")
    assert run("mine.onnx", eval_data=save({"x": np.ones((13, 4), np.float32)}))["eval"]["samples"] == 13


def test_too_few_rows_for_a_fixed_axis_may_be_whole_feeds(run: Run, tmp_path: Path) -> None:
    model = sources.linear()
    for info in (model.graph.input[0], model.graph.output[0]):
        info.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, tmp_path / "mine.onnx")
    with pytest.raises(StageError, match=r"fix axis 0 at 3, .* has 8 rows, of which 2 .* at least 12; .*eval_layout"):
        run("mine.onnx", eval_data=save({"x": np.ones((8, 4), np.float32)}))
    whole = save({"x": np.ones((8, 3, 4), np.float32)})
    assert run("mine.onnx", eval_data=whole, eval_layout="feeds")["eval"]["samples"] == 8


def test_an_output_that_numpy_cannot_hold_is_named_with_its_remedy(run: Run, tmp_path: Path) -> None:
    model = sources.linear()
    model.graph.node[0].output[0] = "h"
    model.graph.node.append(onnx.helper.make_node("Cast", ["h"], ["y"], to=onnx.TensorProto.BFLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    onnx.save(model, tmp_path / "mine.onnx")
    with pytest.raises(StageError, match=r"output 'y' .* tensor\(bfloat16\), .* Cast it to float32 in the model"):
        run("mine.onnx", eval_data=save({"x": ONES}))


def test_an_opset_that_onnx_runtime_no_longer_implements_is_converted_not_cast(run: Run, tmp_path: Path) -> None:
    model = sources.linear()
    model.opset_import[0].version = 6
    model.ir_version = 3
    onnx.save(model, tmp_path / "mine.onnx")
    with pytest.raises(StageError, match=r"implementation for Gemm\(6\).* Convert it to opset 13 or later"):
        run("mine.onnx", eval_data=save({"x": ONES}))


@needs_zoo
def test_recurrent_state_and_scalars_come_as_whole_feeds(run: Run) -> None:
    assert ZOO is not None
    folder = ZOO / "silero_vad_op15"
    metrics = run(str(folder / "model.onnx"), eval_data=str(folder / "samples.npz"), eval_layout="feeds")
    assert metrics["eval"] == {"samples": 64}
    assert metrics["details"]["eval"] == {"layout": "feeds", "search": 16, "judge": 48, "labels": False}
    assert json.loads((paths.EVAL / "manifest.json").read_text())["layout"] == "feeds"


def test_a_source_that_dvc_does_not_watch_is_noted_until_it_is_a_dependency(run: Run, tmp_path: Path) -> None:
    onnx.save(sources.linear(), tmp_path / "mine.onnx")
    save({"x": ONES})
    notes = run("mine.onnx", eval_data="data.npz")["details"]["notes"]
    assert [note.split(" is not among the deps of export")[0] for note in notes] == ["mine.onnx", "data.npz"]
    (tmp_path / "dvc.yaml").write_text(
        "stages: {export: {cmd: python -m stages.export, deps: [mine.onnx, data.npz]}}\n"
    )
    assert run("mine.onnx", eval_data="data.npz")["details"]["notes"] == []


def test_a_callable_is_watched_where_its_module_is(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several models share the code, and each has a folder of its own below it."""
    (tmp_path / "dvc.yaml").write_text(
        "stages: {export: {wdir: one, cmd: PYTHONPATH=.. python -m stages.export, deps: [../shared]}}\n"
    )
    for folder in ("one", "shared"):
        (tmp_path / folder).mkdir()
    (tmp_path / "shared" / "lines.py").write_text("from tests.sources import bare_array as build\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path / "one")
    assert run("shared.lines:build")["details"]["notes"] == []
    (tmp_path / "dvc.yaml").write_text("stages: {export: {wdir: one, cmd: PYTHONPATH=.. python -m stages.export}}\n")
    assert len(run("shared.lines:build")["details"]["notes"]) == 1


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_what_is_not_finite_in_the_data_is_named(value: float, kind: str) -> None:
    cause = fp32._cause(ir_model(sources.linear()), {"x": np.array([[1, value]], np.float32)})
    assert cause == f"The evaluation data has {kind} in 'x': impute it as in training, or remove that sample."
