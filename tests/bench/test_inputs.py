from pathlib import Path

import numpy as np
import pytest

from stages.bench.inputs import HostSummary, Inputs
from stages.common.base.errors import StageError
from stages.common.data import evaldata
from stages.common.data.evaldata import EvalData
from stages.common.timing import feed
from stages.common.timing.launches import ModelPair


def inputs(folder: Path, arrays: dict[str, np.ndarray], layout: evaldata.Layout = "samples") -> Inputs:
    evaldata.write(folder / "eval", arrays, None, layout, seed=0)
    models = ModelPair(folder / "model.onnx", folder / "model.int8.onnx")
    return Inputs(models, ("a", "b"), EvalData(folder / "eval"), 1, "", HostSummary("test", "Model T", 2), [])


def test_samples_are_real_and_of_the_judge_split(tmp_path: Path) -> None:
    values = np.arange(40, dtype=np.float32).reshape(40, 1)
    subject = inputs(tmp_path, {"x": values})
    drawn = feed.load(subject.feed(8, 0, tmp_path))["x"]
    assert drawn.shape == (8, 1)
    assert set(drawn[:, 0]) <= set(values[subject.data.indices("judge"), 0])
    assert len(set(drawn[:, 0])) == 8


def test_a_batch_larger_than_the_split_repeats_samples(tmp_path: Path) -> None:
    subject = inputs(tmp_path, {"x": np.arange(4, dtype=np.float32).reshape(4, 1)})
    drawn = feed.load(subject.feed(10, 0, tmp_path))["x"]
    assert drawn.shape == (10, 1)
    assert set(drawn[:, 0]) == set(subject.data.indices("judge"))


def test_text_and_awkward_names_survive(tmp_path: Path) -> None:
    words = np.array([["a"], ["bc"], ["Zürich"], ["d"]], dtype=object)
    subject = inputs(tmp_path, {"file": words, "in/put:0": np.ones((4, 2), np.int64)})
    drawn = feed.load(subject.feed(3, 0, tmp_path))
    assert list(drawn) == ["file", "in/put:0"]
    assert drawn["file"].dtype == object
    assert isinstance(drawn["file"][0, 0], str)


def test_a_whole_feed_is_given_as_it_is(tmp_path: Path) -> None:
    subject = inputs(tmp_path, {"state": np.zeros((5, 2, 1, 3), np.float32), "rate": np.arange(5)}, "feeds")
    drawn = feed.load(subject.feed(1, 0, tmp_path))
    assert drawn["state"].shape == (2, 1, 3)
    assert drawn["rate"].shape == ()


def test_an_empty_judge_split_is_an_error(tmp_path: Path) -> None:
    subject = inputs(tmp_path, {"x": np.zeros((4, 1), np.float32)})
    np.save(tmp_path / "eval" / "judge.npy", np.empty(0, np.int64))
    with pytest.raises(StageError, match="no samples to judge"):
        subject.feed(1, 0, tmp_path)
