"""Models with external data, through the stage. The size limit is lowered, so that small models are above it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.data import evaldata
from stages.common.model import model_file, sessions
from tests.onnx_models import opened, publish
from tests.quantize import nets
from tests.quantize.running import Bench

METHODS = ("dynamic", "static", "weight_only")
SAMPLES = nets.normal(64, 64, seed=5)


@pytest.fixture
def large(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(model_file, "LARGE_BYTES", 5000)
    publish(model(), paths.FP32_MODEL)
    evaldata.write(paths.EVAL, {"x": SAMPLES}, None, "samples", seed=0)
    return bench


def model() -> ModelProto:
    return nets.mlp((64, 96, 64))


def written() -> tuple[bytes, bytes]:
    return paths.INT8_MODEL.read_bytes(), paths.external_data(paths.INT8_MODEL).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_weights_beside_the_model_are_quantized_as_those_in_it(
    large: Bench, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = large.run(method=method)
    assert outcome.metrics["nodes"] == {"quantizable": 2, "quantized": 2, "kept_float": 0}
    assert outcome.metrics["size"]["times_smaller"] > 2.5
    answers = sessions.run(outcome.int8, {"x": SAMPLES}, name="net")[0]
    assert len(written()[1]) > 96 * 64
    monkeypatch.undo()
    monkeypatch.chdir(large.folder)
    publish(model(), paths.FP32_MODEL)
    outcome = large.run(method=method)
    np.testing.assert_array_equal(answers, sessions.run(outcome.int8, {"x": SAMPLES}, name="net")[0])
    assert written()[1] == model_file.NO_DATA


@pytest.mark.parametrize("method", METHODS)
def test_three_runs_give_the_same_two_files(large: Bench, method: str) -> None:
    seen = set()
    for _ in range(3):
        large.run(method=method)
        seen.add(written())
    assert len(seen) == 1


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("method", METHODS)
def test_links_into_a_dvc_cache_change_nothing(large: Bench, method: str, link: Callable[[Path, Path], None]) -> None:
    large.run(method=method)
    expected = written()
    for number, file in enumerate((paths.FP32_MODEL, paths.external_data(paths.FP32_MODEL))):
        kept = large.folder / "cache" / str(number) / "content"
        kept.parent.mkdir(parents=True)
        shutil.move(file, kept)
        link(kept, large.folder / file)
    outcome = large.run(method=method)
    assert written() == expected
    np.testing.assert_array_equal(
        *(sessions.run(session, {"x": SAMPLES}, name="net")[0] for session in (outcome.fp32, opened(model())))
    )


def test_a_large_model_without_anything_to_quantize_comes_out_as_it_is(large: Bench) -> None:
    nothing = nets.net(
        [nets.node("Add", "x table", "y")], {"x": [64, 64]}, {"y": [64, 64]}, {"table": nets.normal(64, 64)}
    )
    publish(nothing, paths.FP32_MODEL)
    shutil.rmtree(paths.EVAL)
    evaldata.write(paths.EVAL, {"x": nets.normal(256, 64)}, None, "samples", seed=0)
    outcome = large.run()
    assert outcome.metrics["status"] == "nothing_to_quantize"
    table = model_file.read(paths.INT8_MODEL, "quantize").graph.initializers["table"].const_value
    assert table is not None
    np.testing.assert_array_equal(table.numpy(), nets.normal(64, 64))


def test_external_data_that_is_missing_or_belongs_to_another_model_is_named(large: Bench) -> None:
    data = paths.external_data(paths.FP32_MODEL)
    data.write_bytes(data.read_bytes()[:-4096])
    with pytest.raises(StageError, match="it is truncated, or belongs to another model"):
        large.run()
    data.unlink()
    with pytest.raises(StageError, match=r"artifacts/model\.onnx\.data is missing"):
        large.run()
