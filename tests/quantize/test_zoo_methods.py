"""The methods other than dynamic on real models: convolutional nets, transformers, MLPs, and one in float16."""

import numpy as np
import pytest

from tests.onnx_models import stored
from tests.quantize.running import Bench, cosine, run
from tests.zoo import ZOO, needs_zoo

# Nodes quantized by static, and by weight_only.
EXPECTED = {
    "bert_toy": (34, 37),
    "cntk_mnist": (3, 1),
    "face_slim320": (42, 0),
    "lm_head_gelu": (2, 2),
    "pytorch_mnist_cnn": (4, 2),
    "skl_mlp_digits_big": (4, 4),
    "skl_pca_mlp_digits": (3, 3),
    "whisper_attn_fp16": (7, 7),
}


@needs_zoo
@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("method", ["static", "weight_only"])
def test_real_models_keep_their_answers(name: str, method: str, bench: Bench) -> None:
    assert ZOO is not None
    stacked = dict(np.load(ZOO / name / "samples.npz"))
    bench.give(stored(ZOO / name / "model.onnx"), stacked, "feeds")
    outcome = bench.run(method=method)
    assert len(outcome.quantized()) == EXPECTED[name][method == "weight_only"]
    assert outcome.metrics["saturation"]["share"] == 0
    count = min(map(len, stacked.values()))
    feeds = [{key: np.asarray(values[at]) for key, values in stacked.items()} for at in range(1, min(count, 9), 2)]
    floats, others = ([run(session, feed) for feed in feeds] for session in (outcome.fp32, outcome.int8))
    for output, values in floats[0].items():
        if values.dtype.kind == "f":
            assert cosine([answer[output] for answer in floats], [answer[output] for answer in others]) > 0.99


@needs_zoo
def test_one_file_holds_static_dynamic_by_row_and_float(bench: Bench) -> None:
    assert ZOO is not None
    folder = ZOO / "magika_fast_v2_1"
    bench.give(stored(folder / "model.onnx"), dict(np.load(folder / "samples.npz")), "feeds")
    outcome = bench.run(
        nodes={
            "*": {"method": "float"},
            "model/conv1d/*": {"method": "static"},
            "model/target_label/*": {"method": "dynamic", "activation_scale": "row"},
        }
    )
    assert {name: row["how"] or row["reason"] for name, row in outcome.nodes.items()} == {
        "model/dense/Tensordot/MatMul": "matches '*' of quantize.nodes, which keeps it float",
        "model/conv1d/Conv1D": "QInt8 per channel, activations QUInt8",
        "model/target_label/MatMul": "QInt8 per channel, activations per row",
    }
    assert outcome.metrics["size"]["times_smaller"] > 3.5
