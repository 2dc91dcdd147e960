"""A miss is explained by what really causes it, and what is advised really repairs it."""

import json
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from stages.common.base import paths
from stages.common.model.sessions import open_session
from stages.parity import segments
from stages.parity.features import robust_z
from stages.parity.suspects import named, quantized_pieces
from tests.parity.conftest import Project

FEATURES, HIDDEN, CLASSES = 24, 64, 5
OUTLYING = 13
MLP = ("/in/MatMul", "/mid/MatMul", "/out/MatMul")


def mlp(seed: int = 0, *, node_names: bool = True) -> ModelProto:
    """Three matrices; the first meets the input."""
    random = np.random.default_rng(seed)
    shapes = ((FEATURES, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES))
    weights = [random.normal(0, 1.5 / np.sqrt(shape[0]), shape).astype(np.float32) for shape in shapes]
    # The model hardly looks at the feature that is going to be far outside.
    weights[0][OUTLYING] = 0.0
    nodes, last = [], "x"
    for place, name in enumerate(MLP):
        nodes.append(helper.make_node("MatMul", [last, f"w{place}"], [f"m{place}"], name=name if node_names else ""))
        last = f"r{place}"
        kind = {"axis": -1} if place == 2 else {}
        nodes.append(helper.make_node("Softmax" if place == 2 else "Relu", [f"m{place}"], [last], **kind))
    float_ = onnx.TensorProto.FLOAT
    return helper.make_model(
        helper.make_graph(
            nodes,
            "mlp",
            [helper.make_tensor_value_info("x", float_, ["N", FEATURES])],
            [helper.make_tensor_value_info("r2", float_, ["N", CLASSES])],
            [numpy_helper.from_array(weight, f"w{place}") for place, weight in enumerate(weights)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def dynamic(model: ModelProto, exclude: tuple[str, ...] = ()) -> ModelProto:
    quantize_dynamic(model, "q.onnx", weight_type=QuantType.QInt8, per_channel=True, nodes_to_exclude=list(exclude))
    return onnx.load("q.onnx")


def samples(count: int = 256) -> np.ndarray:
    """Normal values, and one feature that is zero but for a few samples."""
    values = np.random.default_rng(1).normal(size=(count, FEATURES)).astype(np.float32)
    values[:, OUTLYING] = 0.0
    values[5::64, OUTLYING] = 150.0
    return values


@pytest.fixture
def missed(project: Project) -> Project:
    """The project whose INT8 model misses at batch 64, and not at batch 1 on ordinary samples."""
    project.write(mlp(), dynamic(mlp()), {"x": samples()}, params={"serving": {"batch_size": 64}})
    return project


class TestMiss:
    def test_the_feature_the_node_and_the_command_are_named(self, missed: Project) -> None:
        found = missed.run()
        printed = missed.printed()
        assert found["passed"] is False
        assert found["parity_notes"]["try_1"] == """dvc exp run -S 'quantize.exclude_nodes=["/in/MatMul"]'"""
        features = printed.split("Input features far outside")[1].splitlines()
        assert features[3].split()[:2] == ["x", str(OUTLYING)]
        assert int(features[3].split()[2]) % 64 == 5
        nodes = printed.split("Nodes at fault")[1].splitlines()
        assert nodes[3].split()[:2] == ["/in/MatMul", "MatMul"]

    def test_what_is_advised_repairs_it_by_the_figure_that_was_told(self, missed: Project) -> None:
        missed.run()
        told = float(missed.printed().split("the largest difference becomes ")[1].split()[0])
        onnx.save(dynamic(mlp(), ("/in/MatMul",)), paths.INT8_MODEL)
        found = missed.run()
        assert found["passed"] is True
        # It was tried on a part of the samples.
        assert told <= found["error"]["max_abs"] * 1.05

    def test_a_wider_tolerance_that_is_advised_is_wide_enough(self, missed: Project) -> None:
        notes = missed.run()["parity_notes"]
        advised = [note for key, note in notes.items() if key.startswith("try_") and "_tol=" in note]
        assert advised
        tree = dict(note.split("parity.")[1].split("=") for note in advised)
        missed.params({"serving": {"batch_size": 64}, "parity": {key: float(value) for key, value in tree.items()}})
        assert missed.run()["passed"] is True

    def test_nodes_that_are_excluded_already_stay_so(self, missed: Project) -> None:
        onnx.save(dynamic(mlp(), ("/out/MatMul",)), paths.INT8_MODEL)
        missed.params({"serving": {"batch_size": 64}, "quantize": {"exclude_nodes": ["/out/MatMul"]}})
        assert '["/out/MatMul", "/in/MatMul"]' in missed.run()["parity_notes"]["try_1"]

    def test_names_are_those_that_quantize_gave(self, missed: Project) -> None:
        int8 = dynamic(mlp())
        onnx.save(mlp(node_names=False), paths.FP32_MODEL)
        paths.METRICS.mkdir(exist_ok=True)
        paths.NODES.write_text("node,op_type,quantized\n" + "".join(f"{name},MatMul,true\n" for name in MLP))
        onnx.save(int8, paths.INT8_MODEL)
        assert "/in/MatMul" in missed.run()["parity_notes"]["try_1"]

    def test_without_any_name_it_says_so(self, missed: Project) -> None:
        onnx.save(mlp(node_names=False), paths.FP32_MODEL)
        missed.run()
        assert "and has a name to exclude it by" in missed.printed()

    def test_nothing_is_advised_that_leaves_nothing_quantized(self, missed: Project) -> None:
        onnx.save(dynamic(mlp(), MLP[1:]), paths.INT8_MODEL)
        assert "exclude_nodes" not in json.dumps(missed.run()["parity_notes"])


class TestBatchEffect:
    def test_alone_it_passes_and_warns_of_the_other_batch(self, missed: Project) -> None:
        values = samples()
        values[:, OUTLYING] = 0.0
        # One sample has nothing but the outlier: alone the model sees no rounding in it, its neighbours do.
        values[5] = 0.0
        values[5, OUTLYING] = 150.0
        missed.write(mlp(), dynamic(mlp()), {"x": values})
        found = missed.run()
        assert found["passed"] is True
        assert found["batch_effect"]["serving_max_abs"] == 0.0
        assert found["batch_effect"]["large_max_abs"] > 0.04
        assert found["batch_effect"]["large_batch"] == 64
        assert "this verdict holds for batches of 1 only" in found["parity_notes"]["note_1"]
        missed.params({"serving": {"batch_size": 64}})
        assert missed.run()["passed"] is False

    def test_in_the_serving_batch_it_says_that_the_neighbours_matter(self, missed: Project) -> None:
        found = missed.run()
        assert found["batch_effect"]["serving_max_abs"] > 0.04
        assert "the answer depends on what is served beside it" in missed.printed()

    def test_a_model_that_does_not_care_moves_by_nothing(self, missed: Project) -> None:
        missed.write(mlp(), mlp(), {"x": samples()}, params={"serving": {"batch_size": 8}})
        found = missed.run()["batch_effect"]
        assert found["large_max_abs"] < 1e-6
        assert found["max_abs"] == max(found["serving_max_abs"], found["large_max_abs"])


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, values: np.ndarray) -> None:
        self.feeds = iter([{"x": values}])

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self.feeds, None)


def static(model: ModelProto, exclude: tuple[str, ...] = ()) -> ModelProto:
    onnx.save(model, "fp32.onnx")
    quantize_static(
        "fp32.onnx", "q.onnx", _Reader(samples()), op_types_to_quantize=["MatMul"], nodes_to_exclude=list(exclude)
    )
    return onnx.load("q.onnx")


@pytest.mark.parametrize("quantize", [dynamic, static])
class TestSwitches:
    def variant(self, quantize: Callable[..., ModelProto]) -> Callable[..., np.ndarray]:
        fp32, int8 = mlp(), quantize(mlp())
        pieces = quantized_pieces(fp32, int8)
        assert list(pieces) == [(name,) for name in MLP]
        listed = {names[0]: piece.segments for names, piece in pieces.items()}
        session = open_session(segments.switched(int8, fp32, listed).SerializeToString())

        def run(*kept: str) -> np.ndarray:
            flags = {name: np.array(name in kept) for name in MLP}
            found: np.ndarray = session.run(None, {"x": samples(16)} | flags)[0]
            return found

        return run

    def test_all_on_is_fp32(self, project: Project, quantize: Callable[..., ModelProto]) -> None:
        del project
        np.testing.assert_allclose(self.variant(quantize)(*MLP), answer(mlp()), rtol=1e-6, atol=1e-7)

    def test_all_off_is_int8(self, project: Project, quantize: Callable[..., ModelProto]) -> None:
        del project
        found, expected = self.variant(quantize)(), answer(quantize(mlp()))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("name", MLP)
    def test_one_on_is_what_excluding_it_gives(
        self, project: Project, quantize: Callable[..., ModelProto], name: str
    ) -> None:
        del project
        found, expected = self.variant(quantize)(name), answer(quantize(mlp(), (name,)))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def answer(model: ModelProto) -> np.ndarray:
    found: np.ndarray = open_session(model.SerializeToString()).run(None, {"x": samples(16)})[0]
    return found


class TestRobustZ:
    def test_of_normal_values_it_is_the_z_score(self) -> None:
        reference = np.random.default_rng(0).normal(5, 2, (20_000, 1))
        np.testing.assert_allclose(robust_z(np.array([[11.0]]), reference), [[3.0]], rtol=0.05)

    def test_outliers_do_not_hide_themselves(self) -> None:
        reference = np.concatenate([np.random.default_rng(0).normal(size=(90, 1)), np.full((10, 1), 1e6)])
        assert robust_z(np.array([[1e6]]), reference)[0, 0] > 1e5

    def test_constant_features(self) -> None:
        reference = np.zeros((50, 2))
        reference[0, 1] = 1.0
        z = robust_z(np.array([[0.0, 0.0], [2.0, 2.0]]), reference)
        assert z[0].tolist() == [0.0, 0.0]
        assert z[1, 0] == np.inf
        assert z[1, 1] == pytest.approx(2 / (1.2533 / 50))


def test_names_of_int8_nodes_lead_to_the_longest_node_that_is_known() -> None:
    known = {"a": "MatMul", "a_1": "Gemm", "b": "Conv"}
    assert named(known, ["a_1_MatMulInteger", "b", "c_Cast"], ["a", "a_1", "b"]) == {"a_1": "Gemm", "b": "Conv"}
    assert named(known, ["a_Add"], ["a", "a_Add"]) == {}
