"""Real models of every kind go through the stage with the right words."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from tests.parity.conftest import Project
from tests.zoo import ZOO, needs_zoo

QUANTIZED = ("MatMul", "Gemm", "LSTM", "Attention", "EmbedLayerNormalization")


def stage_on(project: Project, name: str, **params: Any) -> dict[str, Any]:
    """Quantize a model of the zoo, where ONNX Runtime can, judge it feed by feed, and return the metrics."""
    assert ZOO is not None
    fp32 = onnx.load(ZOO / name / "model.onnx")
    try:
        extra = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(
            onnx.load(ZOO / name / "model.onnx"),
            "q.onnx",
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(QUANTIZED),
            extra_options=extra,
        )
        int8 = onnx.load("q.onnx")
    except ValueError:  # Failed to find proper ai.onnx domain: there is nothing to quantize
        int8 = fp32
    with np.load(ZOO / name / "samples.npz", allow_pickle=True) as stored:
        inputs = {key: np.stack([np.asarray(each) for each in stored[key]]) for key in stored.files}
    project.write(fp32, int8, inputs, layout="feeds", params={"parity": params})
    return project.run()


@needs_zoo
class TestZoo:
    @pytest.mark.parametrize(
        ("name", "decision"),
        [
            ("skl_logreg_zipmap", "label output output_label"),
            ("skl_mlp_digits_zipmap", "label output output_label"),
            ("skl_rf_bc_zipmap", "label output output_label"),
            ("skl_voting_string_label", "label output output_label"),
            ("xgb_bc", "label output label"),
        ],
    )
    def test_classifiers_with_maps_and_labels(self, project: Project, name: str, decision: str) -> None:
        found = stage_on(project, name)
        assert found["judged"]["decision"] == decision
        assert found["decisions"]["flips"] == 0
        assert "  probabilities  " in project.printed()

    def test_a_regressor_is_told_that_its_tolerance_says_little(self, project: Project) -> None:
        found = stage_on(project, "skl_mlp_reg_diabetes")
        assert found["passed"] is False
        assert found["decisions"]["flips"] is None
        assert found["parity_notes"]["try_1"].endswith("-S parity.min_sqnr_db=20")
        assert stage_on(project, "skl_mlp_reg_diabetes", abs_tol=None, mean_tol=None, min_sqnr_db=20)["passed"] is True

    def test_a_detector_with_two_outputs(self, project: Project) -> None:
        found = stage_on(project, "face_slim320")
        assert set(found["outputs"]) == {"scores", "boxes"}
        assert found["judged"]["decision"] == "argmax of scores"

    @pytest.mark.parametrize("name", ["dtln_1", "silero_vad_op15"])
    def test_recurrent_models_with_their_state(self, project: Project, name: str) -> None:
        found = stage_on(project, name)
        assert len(found["outputs"]) == 2
        assert found["batch_effect"]["max_abs"] is None

    def test_an_lstm_at_fault_is_one_node(self, project: Project) -> None:
        stage_on(project, "dtln_1")
        assert project.printed().count("lstm_4") == 2  # in the table of nodes, and in the advice

    def test_an_empty_output(self, project: Project) -> None:
        assert stage_on(project, "go_zero_dim_output")["rules"] == {"equal": True}
        assert "empty on both sides" in project.printed()

    def test_whole_numbers(self, project: Project) -> None:
        assert stage_on(project, "go_multitype")["rules"] == {"equal": True}
