from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import PassResult

from stages.common.base import paths
from stages.common.base.params import Export
from stages.common.graph import cleaning
from stages.export import screen, stage
from stages.export.clean import TINY_BYTES
from tests.export.conftest import Run

UNITS = 40
X = np.random.default_rng(0).normal(size=(12, UNITS)).astype(np.float32)


def old_style(units: int = UNITS) -> onnx.ModelProto:
    """Two layers as exporters of IR version 3 wrote them: weights listed as inputs, one of them behind a Transpose."""
    random = np.random.default_rng(1)
    weights = {name: random.normal(size=(units, units)).astype(np.float32) for name in ("first", "second")}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", units])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [units, units]) for name in weights]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["h"], name="a"),
            helper.make_node("Transpose", ["second"], ["turned"], name="b"),
            helper.make_node("MatMul", ["h", "turned"], ["y"], name="c"),
        ],
        "old",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", units])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, ir_version=3, opset_imports=[helper.make_opsetid("", 9)])


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
        {"step": "initializers taken off the inputs", "undone": None},
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
    assert "Cleaned, with the same answers: initializers taken off the inputs, constant weights computed; undone:" in (
        " ".join(text.split())
    )


def test_tiny_weights_stay_listed_as_inputs(run: Run, tmp_path: Path) -> None:
    units = 4
    assert 2 * units * units * 4 < TINY_BYTES
    save(tmp_path, old_style(units), X[:, :units])
    metrics = run("mine.onnx", eval_data="data.npz")
    assert [value.name for value in published().graph.input] == ["x", "first", "second"]
    assert "initializers taken off the inputs" not in str(metrics["details"]["clean"])


def test_a_weight_that_two_branches_compute_is_not_stored_twice(run: Run, tmp_path: Path) -> None:
    """The weight stays behind its Transpose, and the step is reported as undone."""
    weight = numpy_helper.from_array(np.random.default_rng(2).normal(size=(UNITS, UNITS)).astype(np.float32), "shared")

    def branch(name: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Transpose", ["shared"], [f"{name}_turned"], name=f"{name}_a"),
            helper.make_node("MatMul", ["x", f"{name}_turned"], [f"{name}_y"], name=f"{name}_b"),
        ]
        output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [output])

    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], name="r", keepdims=0),
            helper.make_node("Less", ["zero", "largest"], ["positive"], name="l"),
            helper.make_node(
                "If", ["positive"], ["y"], name="i", then_branch=branch("then"), else_branch=branch("other")
            ),
        ],
        "branches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", UNITS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight, numpy_helper.from_array(np.zeros((), np.float32), "zero")],
    )
    save(tmp_path, helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]))
    metrics = run("mine.onnx", eval_data="data.npz")
    assert metrics["clean"] == {"steps": 0}
    (step,) = metrics["details"]["clean"]
    assert step["step"] == "constant weights computed"
    assert "would grow by 0.0064 MB" in step["undone"]
    assert [tensor.name for tensor in published().graph.initializer] == ["shared", "zero"]
