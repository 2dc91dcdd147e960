from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx_ir.passes import PassResult

from stages.common.base import paths
from stages.common.base.params import Export
from stages.common.graph import cleaning
from stages.export import screen, stage
from stages.export.clean import TINY_BYTES
from tests.export.conftest import Run
from tests.quantize.running import graph

UNITS = 40
X = np.random.default_rng(0).normal(size=(12, UNITS)).astype(np.float32)


def old_style(units: int = UNITS) -> onnx.ModelProto:
    """Two layers as exporters of IR version 3 wrote them: weights listed as inputs, one of them behind a Transpose."""
    random = np.random.default_rng(1)
    weights = {name: random.normal(size=(units, units)).astype(np.float32) for name in ("first", "second")}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], name="a"),
        helper.make_node("Transpose", ["second"], ["turned"], name="b"),
        helper.make_node("MatMul", ["h", "turned"], ["y"], name="c"),
    ]
    inputs: dict[str, tuple[int | str, ...]] = {"x": ("n", units)} | dict.fromkeys(weights, (units, units))
    return graph(nodes, inputs, {"y": ("n", units)}, weights, 9, ir_version=3)


def save(folder: Path, model: onnx.ModelProto, x: np.ndarray = X) -> None:
    onnx.save(model, folder / "mine.onnx")
    np.savez(folder / "data.npz", x=x)


def published() -> onnx.ModelProto:
    return onnx.load(paths.FP32_MODEL)


def test_the_published_model_is_clean(run: Run, tmp_path: Path) -> None:
    save(tmp_path, old_style())
    metrics = run("mine.onnx", eval_data="data.npz")
    assert metrics["clean"] == {"steps": 2}
    assert metrics["details"]["clean"] == [
        {"step": "initializers removed from the inputs", "undone": None},
        {"step": "constant weights computed", "undone": None},
    ]
    model = published()
    assert [value.name for value in model.graph.input] == ["x"]
    assert [node.op_type for node in model.graph.node] == ["MatMul", "MatMul"]
    assert model.opset_import[0].version == 9


def test_a_clean_model_is_published_as_it_is(run: Run, tmp_path: Path) -> None:
    save(tmp_path, old_style())
    run("mine.onnx", eval_data="data.npz")
    clean = published()
    onnx.save(clean, tmp_path / "mine.onnx")
    metrics = run("mine.onnx", eval_data="data.npz")
    assert metrics["clean"] == {"steps": 0}
    assert published() == clean


def test_without_cleaning_the_source_is_published(run: Run, tmp_path: Path) -> None:
    save(tmp_path, old_style())
    metrics = run("mine.onnx", eval_data="data.npz", clean=False)
    assert metrics["clean"] == {"steps": 0}
    assert metrics["details"]["clean"] == []
    assert [value.name for value in published().graph.input] == ["x", "first", "second"]


def test_a_step_that_changes_answers_is_undone_and_reported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: ir.Model) -> PassResult:
        first = model.graph.initializers["first"]
        assert first.const_value is not None
        first.const_value = ir.tensor(first.const_value.numpy() * np.float32(1.001), name="first")
        return PassResult(model, modified=True)

    monkeypatch.setattr(cleaning, "PASSES", (("weights spoilt", spoil), *cleaning.PASSES))
    save(tmp_path, old_style())
    metrics = run("mine.onnx", eval_data="data.npz")
    assert metrics["clean"] == {"steps": 2}
    assert "output 'y' moved by" in metrics["details"]["clean"][0]["undone"]
    text = screen.render(stage.run(Export(source="mine.onnx", eval_data="data.npz")))
    cleaned = "Cleaned, with the same answers: initializers removed from the inputs, constant weights computed; undone:"
    assert cleaned in " ".join(text.split())


def test_tiny_weights_stay_listed_as_inputs(run: Run, tmp_path: Path) -> None:
    units = 4
    assert 2 * units * units * 4 < TINY_BYTES
    save(tmp_path, old_style(units), X[:, :units])
    metrics = run("mine.onnx", eval_data="data.npz")
    assert [value.name for value in published().graph.input] == ["x", "first", "second"]
    assert "initializers removed from the inputs" not in str(metrics["details"]["clean"])


def test_a_weight_that_is_stored_in_half_the_bytes_stays_so(run: Run, tmp_path: Path) -> None:
    """The weight stays behind its Cast, and the step is reported as undone."""
    nodes = [
        helper.make_node("Cast", ["half"], ["W"], name="a", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "W"], ["y"], name="b"),
    ]
    half = np.random.default_rng(2).normal(size=(UNITS, 2 * UNITS)).astype(np.float16)
    save(tmp_path, graph(nodes, {"x": ("n", UNITS)}, {"y": ("n", 2 * UNITS)}, {"half": half}))
    metrics = run("mine.onnx", eval_data="data.npz")
    assert metrics["clean"] == {"steps": 0}
    (step,) = metrics["details"]["clean"]
    assert step["step"] == "constant weights computed"
    assert "would grow by 0.0064 MB" in step["undone"]
    assert [tensor.name for tensor in published().graph.initializer] == ["half"]
