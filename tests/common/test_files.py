"""Output files appear complete or not at all."""

import errno
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.base import files
from stages.common.base.errors import MissingInputError, StageError


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Stop(BaseException):
    """No subclass of Exception, like the exceptions of Ctrl-C and SIGTERM."""


def test_a_block_that_is_stopped_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(Stop), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise Stop
    assert files.read_json(path, "x") == {"a": 1}
    assert names(path.parent) == ["x.json"]


def test_folders_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "eval"
    for name in ("first", "second"):
        with files.replacing(path) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert names(path) == ["second"]
    assert names(tmp_path) == ["eval"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_survives_an_interrupt_while_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Between moving the old folder aside and putting the new one in place, neither is at the final name."""
    path = tmp_path / "eval"
    path.mkdir()
    (path / "old").touch()
    rename, calls = Path.rename, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise Stop
        return rename(self, target)

    with pytest.raises(Stop), files.replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
        monkeypatch.setattr(Path, "rename", interrupted)
    assert names(path) == ["old"]
    assert names(tmp_path) == ["eval"]


def test_a_folder_that_a_killed_process_moved_aside_comes_back(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    aside = tmp_path / f".eval.{dead.pid}.old.tmp"
    aside.mkdir()
    (aside / "old").touch()
    with pytest.raises(Stop), files.replacing(tmp_path / "eval"):
        raise Stop
    assert names(tmp_path) == ["eval"]
    assert names(tmp_path / "eval") == ["old"]


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, ours, other = (
        tmp_path / name for name in (f".x.csv.{dead.pid}.tmp", f".x.csv.{os.getppid()}.tmp", f".y.csv.{dead.pid}.tmp")
    )
    for file in (left, ours, other):
        file.touch()
    with files.together() as outputs:
        outputs.csv(tmp_path / "x.csv", ["a"], [[1]])
    assert not left.exists()
    assert ours.exists()
    assert other.exists()
    assert (tmp_path / "x.csv").read_bytes() == b"a\n1\n"


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """/dev/full, on which every write fails, replaces the temporary files."""
    with pytest.raises(OSError, match=r"No space left on device: '.*/x\.bin'"), files.replacing(tmp_path / "x.bin"):
        Path("/dev/full").write_bytes(b"x")
    for name in (".x.csv", ".x.json"):
        (tmp_path / f"{name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*/x\.csv'"), files.together() as outputs:
        outputs.csv(tmp_path / "x.csv", ["a"], [])
    with pytest.raises(OSError, match=r"No space left on device: '.*/x\.json'"), files.together() as outputs:
        outputs.json(tmp_path / "x.json", {})
    assert names(tmp_path) == []


def test_a_short_write_of_numpy_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*/eval'"), files.replacing(tmp_path / "eval"):
        raise OSError("46016 requested and 25568 written")


def test_a_full_disk_is_that_of_the_copy_and_not_of_its_source(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}'") as caught,
        files.scratch("x") as folder,
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "source", None, str(folder / "copy"))
    assert caught.value.filename2 is None


def test_no_error_names_a_temporary_file(tmp_path: Path) -> None:
    (tmp_path / f".x.json.{os.getpid()}.tmp").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        files.write_json(tmp_path / "x.json", {})
    assert caught.value.filename == (tmp_path / "x.json").as_posix()


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(IsADirectoryError) as caught, files.replacing(tmp_path / "page.html") as temporary:
        temporary.touch()
    (tmp_path / "x.json").mkdir()
    with pytest.raises(IsADirectoryError) as caught_json:
        files.write_json(tmp_path / "x.json", {})
    assert [Path(error.value.filename).name for error in (caught, caught_json)] == ["page.html", "x.json"]
    assert names(tmp_path) == ["page.html", "x.json"]


def test_a_read_only_folder_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "eval" / "inputs").mkdir(parents=True)
    (tmp_path / "eval" / "inputs" / "x.npy").touch()
    for folder in (tmp_path / "eval" / "inputs", tmp_path / "eval"):
        folder.chmod(0o500)
    if os.access(tmp_path / "eval", os.W_OK):
        pytest.skip("root may write into read-only folders")
    with files.replacing(tmp_path / "eval") as temporary:
        temporary.mkdir()
    assert names(tmp_path) == ["eval"]


def test_files_that_belong_together_appear_together_or_not_at_all(tmp_path: Path) -> None:
    evidence, headlines = tmp_path / "details" / "x.csv", tmp_path / "x.json"
    files.write_json(headlines, {"run": 1})
    with pytest.raises(ValueError, match="not JSON compliant"), files.together() as outputs:
        outputs.csv(evidence, ["run"], [[2]])
        outputs.json(headlines, {"run": math.nan})
    assert names(evidence.parent) == []
    assert files.read_json(headlines, "x") == {"run": 1}
    with files.together() as outputs:
        outputs.csv(evidence, ["run"], [[2]])
        outputs.json(headlines, {"run": 2})
        assert files.read_json(headlines, "x") == {"run": 1}
    assert (names(evidence.parent), files.read_json(headlines, "x")) == (["x.csv"], {"run": 2})
    assert names(tmp_path) == ["details", "x.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_holds_no_nan(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"a": {"b": value}})
    assert names(tmp_path) == []


def test_missing_and_broken_metrics_name_the_stage(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"Missing .*x\.json\. Run bench first\."):
        files.read_json(tmp_path / "x.json", "bench")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(StageError, match=r"not valid JSON .* Run bench again\."):
        files.read_json(tmp_path / "x.json", "bench")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(StageError, match="does not hold a JSON object"):
        files.read_json(tmp_path / "x.json", "bench")


@given(st.floats(min_value=1e-300, max_value=1e300), st.sampled_from([1, -1]), st.integers(1, 12))
def test_rounding_keeps_so_many_significant_digits(size: float, sign: int, digits: int) -> None:
    result = files.rounded(sign * size, digits)
    assert result is not None
    assert abs(result - sign * size) <= size * 10.0 ** (1 - digits)
    assert files.rounded(result, digits) == result


def test_no_number_is_null() -> None:
    assert [files.rounded(value) for value in (None, math.nan, math.inf, -math.inf)] == [None] * 4
