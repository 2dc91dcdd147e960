from pathlib import Path

import numpy as np
import pytest

from stages.bench import feeds
from stages.common.base.errors import StageError
from stages.common.data import evaldata
from stages.common.data.evaldata import EvalData


def data(folder: Path, inputs: dict[str, np.ndarray], layout: evaldata.Layout = "samples") -> EvalData:
    evaldata.write(folder / "eval", inputs, None, layout, seed=0)
    return EvalData(folder / "eval")


def test_samples_are_real_and_of_the_judge_split(tmp_path: Path) -> None:
    values = np.arange(40, dtype=np.float32).reshape(40, 1)
    held = data(tmp_path, {"x": values})
    stored = feeds.draw(held, 8, 0, tmp_path)
    found = feeds.load(stored.job())["x"]
    assert found.shape == (8, 1)
    assert set(found[:, 0]) <= set(values[held.indices("judge"), 0])
    assert len(set(found[:, 0])) == 8


def test_a_batch_larger_than_the_split_repeats_samples(tmp_path: Path) -> None:
    held = data(tmp_path, {"x": np.arange(4, dtype=np.float32).reshape(4, 1)})
    assert feeds.load(feeds.draw(held, 10, 0, tmp_path).job())["x"].shape == (10, 1)


def test_text_and_awkward_names_survive(tmp_path: Path) -> None:
    words = np.array([["a"], ["bc"], ["Zürich"], ["d"]], dtype=object)
    held = data(tmp_path, {"file": words, "in/put:0": np.ones((4, 2), np.int64)})
    found = feeds.load(feeds.draw(held, 3, 0, tmp_path).job())
    assert list(found) == ["file", "in/put:0"]
    assert found["file"].dtype == object
    assert isinstance(found["file"][0, 0], str)


def test_a_whole_feed_is_given_as_it_is(tmp_path: Path) -> None:
    held = data(tmp_path, {"state": np.zeros((5, 2, 1, 3), np.float32), "rate": np.arange(5)}, "feeds")
    found = feeds.load(feeds.draw(held, 1, 0, tmp_path).job())
    assert found["state"].shape == (2, 1, 3)
    assert found["rate"].shape == ()


def test_an_empty_judge_split_is_said(tmp_path: Path) -> None:
    held = data(tmp_path, {"x": np.zeros((4, 1), np.float32)})
    np.save(tmp_path / "eval" / "judge.npy", np.empty(0, np.int64))
    with pytest.raises(StageError, match="no sample to judge on"):
        feeds.draw(held, 1, 0, tmp_path)
