"""Real models: each must end in the way listed here."""

import locale
import shutil
from pathlib import Path

import numpy as np
import pytest

from stages.common.base import paths
from stages.common.base.errors import StageError
from tests.quantize.running import Bench, Outcome, cosine, run
from tests.zoo import ZOO, needs_zoo

QUANTIZED = {
    "bert_toy",
    "cntk_bilstm",
    "cntk_mnist",
    "cntk_scan",
    "dtln_1",
    "go_big_fanout",
    "go_lora",
    "gpt2_contrib_attention",
    "gpt2_past",
    "keras_bert_qa",
    "lm_head_gelu",
    "magika_fast_v2_1",
    "pytorch_mnist_cnn",
    "silero_vad_op15",
    "skl_calib_mlp_isotonic_nozipmap",
    "skl_mlp_digits_big",
    "skl_mlp_digits_zipmap",
    "skl_mlp_reg_diabetes",
    "skl_pca_mlp_digits",
    "tiny_gpt2_beamsearch",
    "voice_commands",
    "whisper_attn_fp16",
    "zero_mlp",
}

NOTHING_TO_QUANTIZE = {
    "convtranspose_conv",
    "external_pads",
    "face_slim320",
    "fns_candy",
    "go_multitype",
    "go_zero_dim_output",
    "lgbm_bc_nozipmap",
    "loop_sub_one",
    "nested_fn_fp16",
    "onnx_light_squeezenet",
    "ort_logreg_iris",
    "skl_gbr_diabetes",
    "skl_logreg_zipmap",
    "skl_mlp_digits_double",
    "skl_rf_bc_zipmap",
    "skl_voting_string_label",
    "squeezenet_zipmap",
    "xgb_bc",
}

# Name -> what the error must say.
REFUSED = {
    "bert_tokenizer_custom_op": "BertTokenizer.* is not a registered function/op.* Export it with standard operators",
    "conv_qdq_external": "is quantized already: it has the QuantizeLinear node",
    "fp8_cast": "is quantized already: it has the QuantizeLinear node",
    "go_fp16_bf16": "bfloat16",
    "go_strings": "Failed to construct locale.* StringNormalizer needs the locale en_US.UTF-8",
    "qdq_mobilenet_block": "is quantized already: it has the DequantizeLinear node",
}

# A file that is not a usable model -> what the error must say.
BROKEN = {
    "already_dynamic_int8.onnx": "is quantized already: it has the DynamicQuantizeLinear",
    "empty.onnx": "is empty",
    "future_ir_99.onnx": "has IR version 99",
    "html_error_page.onnx": "is a web page",
    "inf_weight.onnx": "weight 'conv1.weight' of .* has infinity in 1 of 250 values",
    "lfs_pointer.onnx": "is a Git LFS pointer",
    "missing_external_data": "conv_qdq_external_ini.bin is missing",
    "truncated.onnx": "is truncated",
}

pytestmark = needs_zoo


def _feeds(folder: Path) -> dict[str, np.ndarray]:
    """All feeds, stacked along axis 0."""
    samples = folder / "samples.npz"
    stored = np.load(samples if samples.exists() else folder / "inputs.npz", allow_pickle=True)
    return {name: stored[name] if samples.exists() else stored[name][None] for name in stored.files}


def _give(bench: Bench, folder: Path) -> dict[str, np.ndarray]:
    feeds = _feeds(folder)
    bench.give((folder / "model.onnx").read_bytes(), feeds, "feeds")
    for file in folder.glob("*.bin"):
        shutil.copy(file, paths.ARTIFACTS)
    return feeds


def _has_locale() -> bool:
    try:
        locale.setlocale(locale.LC_CTYPE, "en_US.UTF-8")
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, "")
    return True


def _assert_within_sanity(outcome: Outcome, feeds: dict[str, np.ndarray]) -> None:
    fp32, int8 = outcome.fp32, outcome.int8
    rows = [
        {name: np.asarray(array[at]) for name, array in feeds.items()} for at in range(len(next(iter(feeds.values()))))
    ]
    floats, others = [run(fp32, feed) for feed in rows], [run(int8, feed) for feed in rows]
    for name, first in floats[0].items():
        if first.dtype.kind == "f":
            assert cosine([one[name] for one in floats], [one[name] for one in others]) >= 0.98, name


def test_every_model_is_written_down() -> None:
    assert ZOO is not None
    names = {folder.name for folder in ZOO.iterdir() if (folder / "model.onnx").exists()}
    assert names == QUANTIZED | NOTHING_TO_QUANTIZE | REFUSED.keys()
    assert not QUANTIZED & NOTHING_TO_QUANTIZE


@pytest.mark.parametrize("name", sorted(QUANTIZED))
def test_quantized_within_sanity(bench: Bench, name: str) -> None:
    assert ZOO is not None
    feeds = _give(bench, ZOO / name)
    outcome = bench.run()
    assert outcome.metrics["status"] == "quantized"
    assert outcome.metrics["nodes"]["quantized"] == len(outcome.quantized()) > 0
    assert outcome.metrics["saturation"]["share"] == 0
    _assert_within_sanity(outcome, feeds)


@pytest.mark.parametrize("name", sorted(NOTHING_TO_QUANTIZE))
def test_nothing_to_quantize(bench: Bench, name: str) -> None:
    assert ZOO is not None
    _give(bench, ZOO / name)
    outcome = bench.run()
    assert outcome.metrics["status"] == "nothing_to_quantize"
    assert outcome.metrics["nodes"]["quantized"] == 0
    assert "Nothing to quantize: " in outcome.said
    assert all(row["reason"] for row in outcome.nodes.values())


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_with_a_reason(bench: Bench, name: str) -> None:
    assert ZOO is not None
    _give(bench, ZOO / name)
    if name == "go_strings" and _has_locale():
        pytest.skip("this machine has the locale that the model needs")
    with pytest.raises(StageError, match=REFUSED[name]):
        bench.run()
    assert not paths.INT8_MODEL.exists()


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_broken_files_are_refused_by_their_cause(bench: Bench, name: str) -> None:
    assert ZOO is not None
    broken = ZOO / "_broken" / name
    file = broken / "model.onnx" if broken.is_dir() else broken
    bench.give(file.read_bytes(), {"x": np.zeros((4, 4), np.float32)})
    with pytest.raises(StageError, match=BROKEN[name]):
        bench.run()
    assert not paths.INT8_MODEL.exists()
