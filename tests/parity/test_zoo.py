"""Real models of every kind: what decides, which rules apply, and the verdict with default params."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from tests.parity.conftest import Project
from tests.parity.test_stage import outcomes
from tests.zoo import ZOO, needs_zoo

QUANTIZED = ("MatMul", "Gemm", "LSTM", "Attention", "EmbedLayerNormalization")


def stage_on(project: Project, name: str, **params: Any) -> dict[str, Any]:
    """Quantize a model of the zoo if ONNX Runtime can, judge it feed by feed, and return the details."""
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
        inputs = {key: np.stack([np.asarray(value) for value in stored[key]]) for key in stored.files}
    project.write(fp32, int8, inputs, layout="feeds", tree={"parity": params})
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
        result = stage_on(project, name)
        assert result["judged"]["decision"] == decision
        assert result["decisions"]["flips"] == 0
        assert "  probabilities  " in project.printed()

    def test_a_regressor_is_judged_by_the_spread_of_its_answers(self, project: Project) -> None:
        result = stage_on(project, "skl_mlp_reg_diabetes")
        assert result["outputs"]["variable"]["max_abs"] > 0.04
        assert [rule["name"] for rule in result["rules"]] == ["nonfinite", "max_nrmse"]
        assert (result["passed"], result["decisions"]["flips"]) == (True, None)

    def test_a_detector_with_two_outputs(self, project: Project) -> None:
        result = stage_on(project, "face_slim320")
        assert {name: output["kind"] for name, output in result["outputs"].items()} == {
            "scores": "probabilities",
            "boxes": "float",
        }
        assert result["judged"]["decision"] == "argmax of scores along the last axis"

    @pytest.mark.parametrize("name", ["dtln_1", "silero_vad_op15"])
    def test_recurrent_models_with_their_state(self, project: Project, name: str) -> None:
        result = stage_on(project, name)
        assert len(result["outputs"]) == 2
        assert result["batch_effect"]["max_abs"] is None

    def test_an_empty_output(self, project: Project) -> None:
        assert outcomes(stage_on(project, "go_zero_dim_output")) == {"equal": "passed"}
        assert "empty in both models" in project.printed()

    def test_integers(self, project: Project) -> None:
        assert outcomes(stage_on(project, "go_multitype")) == {"equal": "passed"}
