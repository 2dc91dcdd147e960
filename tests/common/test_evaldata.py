"""Evaluation data is read back in batches as it was written, and split in two."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.base.errors import StageError
from stages.common.data import evaldata


@given(st.integers(1, 2000), st.integers(0, 2**32))
def test_the_split_is_a_partition_and_judge_is_never_empty(samples: int, seed: int) -> None:
    search, judge = evaldata.split(samples, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([search, judge])), np.arange(samples))
    assert len(judge) >= 1
    assert len(search) == (0 if samples == 1 else max(1, round(samples * evaldata.SEARCH_SHARE)))
    assert (np.diff(search) > 0).all()
    assert (np.diff(judge) > 0).all()


def test_the_seed_alone_decides_the_split() -> None:
    first, again, other = (evaldata.split(100, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@settings(deadline=None, max_examples=40)
@given(samples=st.integers(1, 60), size=st.integers(1, 70), chunk=st.integers(1, 500), data=st.data())
def test_batches_yield_every_sample_once_whatever_the_chunk_size(
    tmp_path_factory: pytest.TempPathFactory, samples: int, size: int, chunk: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("eval") / "eval"
    x = np.arange(samples * 6, dtype=np.float32).reshape(samples, 2, 3)
    t = np.array([f"n{i}" for i in range(samples)], dtype=object).reshape(-1, 1)
    evaldata.write(folder, {"a/b:0": x, "t": t}, np.arange(samples) * 2, "samples", seed=0)
    opened = evaldata.EvalData(folder)
    wanted = np.array(data.draw(st.lists(st.integers(0, samples - 1), unique=True)), dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaldata, "CHUNK_BYTES", chunk)
        batches = list(opened.batches(wanted, size))
    assert [len(batch.indices) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([batch.indices for batch in batches] or [wanted]), wanted)
    for batch in batches:
        np.testing.assert_array_equal(batch.feed["a/b:0"], x[batch.indices])
        assert batch.feed["t"].dtype == object
        assert batch.feed["t"].tolist() == t[batch.indices].tolist()
        np.testing.assert_array_equal(opened.labels(batch.indices), batch.indices * 2)


def test_whole_feeds_are_passed_one_at_a_time_unchanged(tmp_path: Path) -> None:
    scalars = np.arange(5, dtype=np.int64)
    state = np.random.default_rng(0).normal(size=(5, 2, 1, 3)).astype(np.float32)
    evaldata.write(tmp_path / "eval", {"rate": scalars, "state": state}, None, "feeds", seed=0)
    batches = list(evaldata.EvalData(tmp_path / "eval").batches(np.array([3, 1]), 4))
    assert [batch.indices.tolist() for batch in batches] == [[3], [1]]
    assert batches[0].feed["rate"].shape == ()
    np.testing.assert_array_equal(batches[1].feed["state"], state[1])


def test_labels_may_be_unknown_or_text(tmp_path: Path) -> None:
    x = np.zeros((2, 1), np.float32)
    evaldata.write(tmp_path / "a", {"x": x}, None, "samples", seed=0)
    assert evaldata.EvalData(tmp_path / "a").labels(np.array([0])) is None
    evaldata.write(tmp_path / "b", {"x": x}, np.array(["cat", "dog"], dtype=object), "samples", seed=0)
    labels = evaldata.EvalData(tmp_path / "b").labels(np.array([1]))
    assert labels is not None
    assert labels.tolist() == ["dog"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "Run export first"),
        (
            lambda folder: (folder / "manifest.json").write_text("{}"),
            "does not describe evaluation data .* Run export again",
        ),
        (
            lambda folder: (folder / "manifest.json").write_text("{"),
            "does not describe evaluation data .* Run export again",
        ),
    ],
)
def test_a_folder_that_export_did_not_write(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    folder = tmp_path / "eval"
    evaldata.write(folder, {"x": np.zeros((2, 1), np.float32)}, None, "samples", seed=0)
    spoil(folder)
    with pytest.raises(StageError, match=words):
        evaldata.EvalData(folder)
