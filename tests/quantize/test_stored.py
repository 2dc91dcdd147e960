"""Method stored: the file shrinks, and the model that runs is a float one."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from stages.common.base import paths
from tests.quantize import nets
from tests.quantize.running import Bench


def optimised(tmp_path: Path) -> list[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    ort.InferenceSession(paths.INT8_MODEL.read_bytes(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]


@pytest.mark.parametrize("net", ["mlp", "conv"])
def test_the_weights_are_folded_into_floats_when_the_model_is_loaded(bench: Bench, net: str, tmp_path: Path) -> None:
    if net == "mlp":
        bench.give(nets.mlp((64, 512, 10)), {"x": np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)})
    else:
        bench.give(nets.conv_net(16), {"x": np.random.default_rng(0).normal(size=(40, 1, 16, 16)).astype(np.float32)})
    made = bench.run(method="stored")
    assert made.metrics["size"]["times_smaller"] > (3 if net == "mlp" else 1.2)
    assert all(row["how"] == "stored as QInt8, computed in float" for row in made.nodes.values())
    assert not {"Cast", "Mul"} & set(optimised(tmp_path))
