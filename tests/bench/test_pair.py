import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from stages.bench import pair
from stages.bench.pair import compare_pair
from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.timing import feed
from stages.common.timing.feed import StoredFeed
from stages.common.timing.launches import ModelPair
from stages.common.timing.summary import Launch, PairedTiming, summarize
from tests import sources


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ModelPair, dict[str, np.ndarray]]]:
    """Record what would be timed, the models and the feed, and give every pair a speed-up of about 2."""
    calls: list[tuple[ModelPair, dict[str, np.ndarray]]] = []

    def time_pair(models: ModelPair, feeds: Sequence[StoredFeed], *_args: Any, **_options: Any) -> list[PairedTiming]:
        calls.append((models, feed.load(feeds[0])))
        launches = [Launch([(np.full(4, 2e6 + number), np.full(4, 1e6))] * 4, 1.0) for number in range(8)]
        return [summarize(launches, feeds[0].samples, 0.02)]

    monkeypatch.setattr(pair, "time_pair", time_pair)
    return calls


def compared(models: ModelPair, **sections: Any) -> str:
    """The text, without its line breaks."""
    return " ".join(compare_pair(models, Params().model_copy(update=sections)).split())


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.name != "lock"}


def test_two_files_are_timed_on_the_evaluation_data_and_nothing_is_written(project: Path, timed: list[Any]) -> None:
    before = files_of(project)
    text = compared(ModelPair(paths.INT8_MODEL, paths.FP32_MODEL))
    assert timed[0][0] == (paths.INT8_MODEL, paths.FP32_MODEL)
    assert timed[0][1]["x"].shape == (1, 256)
    assert "Timed on the evaluation data in artifacts/eval." in text
    assert "Speed-up of artifacts/model.onnx over artifacts/model.int8.onnx: 2.000 (95 % interval 2.000 to" in text
    assert "faster." in text
    assert files_of(project) == before


def test_without_evaluation_data_inputs_are_generated_and_the_text_says_so(project: Path, timed: list[Any]) -> None:
    shutil.rmtree(paths.EVAL)
    serving = Params().serving.model_copy(update={"batch_size": 3})
    text = compared(ModelPair(paths.FP32_MODEL, paths.FP32_MODEL), serving=serving)
    assert timed[0][1]["x"].shape == (3, 256)
    assert "inputs generated from the declared shapes, because no evaluation data fits: Missing artifacts/eval" in text
    assert "batch 3" in text


def test_evaluation_data_of_another_model_is_not_used(project: Path, timed: list[Any]) -> None:
    onnx.save(sources.linear(width=8), "other.onnx")
    text = compared(ModelPair(Path("other.onnx"), Path("other.onnx")))
    assert timed[0][1]["x"].shape == (1, 8)
    assert "because no evaluation data fits: The model input 'x' expects the shape" in text


def test_a_missing_file_is_named(project: Path) -> None:
    with pytest.raises(StageError, match=r"nothing\.onnx does not exist\."):
        compare_pair(ModelPair(paths.FP32_MODEL, Path("nothing.onnx")), Params())


def test_models_of_different_inputs_are_refused(project: Path) -> None:
    model = sources.linear(width=256)
    model.graph.input[0].name = model.graph.node[0].input[0] = "z"
    onnx.save(model, "other.onnx")
    with pytest.raises(StageError, match=r"input 'x': .*has tensor\(float\) there, other\.onnx has no such input\."):
        compare_pair(ModelPair(paths.FP32_MODEL, Path("other.onnx")), Params())


@pytest.mark.usefixtures("short")
def test_a_pair_is_timed_for_real(project: Path) -> None:
    section = Params().bench.model_copy(update={"max_seconds": 0.1})
    text = compared(ModelPair(paths.FP32_MODEL, paths.INT8_MODEL), bench=section)
    assert "3 launches on" in text
