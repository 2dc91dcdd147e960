"""A model of every framework through the whole pipeline, by DVC, in a repository of its own.

The examples do the same for a data frame with text, XGBoost, and ONNX (test_examples.py).
"""

from pathlib import Path

import pytest

from tests.pipeline.conftest import clone

QUANTIZED, NOTHING = "quantized", "nothing_to_quantize"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("tests.export.models:search", QUANTIZED),
        ("tests.export.models:lightgbm_classifier", NOTHING),
        pytest.param("tests.export.models:torch_cnn", QUANTIZED, marks=pytest.mark.torch),
        pytest.param("tests.export.models:torch_tokens", QUANTIZED, marks=pytest.mark.torch),
    ],
)
def test_a_model_is_exported_quantized_judged_and_benched(tmp_path: Path, source: str, status: str) -> None:
    project = clone(tmp_path / "project")
    project.set(export={"source": source}, bench={"target_halfwidth": 0.5})
    project.run("dvc", "repro", "bench", "parity")
    export, quantize, parity, bench = (project.metrics(stage) for stage in ("export", "quantize", "parity", "bench"))
    assert export["eval"]["samples"] > 100
    assert export["drift"]["max_abs"] < 0.05
    assert quantize["status"] == status
    assert parity["passed"] is True
    assert parity["judged"]["samples"] > 50
    # Two equal files are not timed against each other.
    assert (bench["latency"]["fp32_p50_ms"] is None) == (status == NOTHING)
    assert project.run("dvc", "status", "export", "quantize", "parity", "bench").stdout.strip().endswith("up to date.")
