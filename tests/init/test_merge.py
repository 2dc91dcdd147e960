"""Adding lines to files as teams really have them: line ends, encodings, links, mappings in braces."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.common.base import yaml12
from stages.common.base.errors import StageError
from stages.init import merge, screen, stage

ROOT = Path(__file__).resolve().parents[2]
OURS = "# Ours.\nexport:\n  seed: 0\n"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """The root of a DVC repository without stages."""
    (tmp_path / ".dvc").mkdir()
    return tmp_path


@pytest.mark.parametrize("join", [merge.added, merge.added_lines])
def test_line_ends_stay_as_they_are(join: Callable[[str, str, str], str]) -> None:
    theirs = "# Theirs.\r\ntrain:\r\n  lr: 0.1\r\n"
    joined = join(theirs, OURS, "params.yaml")
    assert joined.startswith(theirs)
    assert joined.count("\n") == joined.count("\r\n") > theirs.count("\n")


def test_an_upgrade_keeps_line_ends() -> None:
    current, base, new = "a: 1\r\n\r\nb: 2\r\n\r\nc: 3\r\n", "b: 2\r\n\r\nc: 3\r\n", "b: 2\r\n\r\nc: 4\r\n"
    assert merge.three_way(current, base, new) == "a: 1\r\n\r\nb: 2\r\n\r\nc: 4\r\n"


def test_keys_are_added_before_the_mark_that_ends_a_document() -> None:
    joined = merge.added("---\ntrain: 1\n...\n", OURS, "params.yaml")
    assert yaml12.load(joined) == {"train": 1, "export": {"seed": 0}}


@pytest.mark.parametrize("theirs", ["{train: {lr: 0.1}}\n", '{\n  "train": 1\n}\n', "  train:\n    lr: 0.1\n"])
def test_params_to_which_no_line_can_be_added_are_left_alone(empty: Path, theirs: str) -> None:
    (empty / "params.yaml").write_text(theirs)
    adoption = stage.run(stage.Origin(ROOT), empty)
    assert adoption.taken == "params.yaml has its keys in braces, or indented"
    assert (empty / "params.yaml").read_text() == theirs
    assert (empty / "int8/params.yaml").exists()


def test_what_is_not_utf8_is_named(empty: Path) -> None:
    (empty / "params.yaml").write_bytes(b"# \xfcber\ntrain: 1\n")
    with pytest.raises(StageError, match=r"^params\.yaml is not UTF-8 text, .* Convert it first\.$"):
        stage.run(stage.Origin(ROOT), empty)
    assert [file.name for file in empty.iterdir() if file.name != ".dvc"] == ["params.yaml"]


def test_a_record_with_conflict_marks_is_named(empty: Path) -> None:
    (empty / stage.RECORD).write_text("<<<<<<< HEAD\n{}\n")
    with pytest.raises(StageError, match=r"\.onnx-int8\.json is not valid JSON .* Restore it from git"):
        stage.run(stage.Origin(ROOT), empty)


def test_a_link_stays_a_link(empty: Path) -> None:
    (empty / "conf").mkdir()
    (empty / "conf/params.yaml").write_text("train: 1\n")
    (empty / "params.yaml").symlink_to("conf/params.yaml")
    stage.run(stage.Origin(ROOT), empty)
    assert (empty / "params.yaml").is_symlink()
    assert set(yaml12.load((empty / "conf/params.yaml").read_text())) > {"train", "export"}


def test_commands_to_copy_are_quoted(empty: Path) -> None:
    shown = screen.render(stage.run(stage.Origin(ROOT), empty / "our models"))
    steps = [line.partition(". ")[2] for line in shown.splitlines()]
    assert ["dvc", "repro", "our models/dvc.yaml"] in map(shlex.split, filter(None, steps))
    assert "-r 'our models/models/requirements.txt'" in shown
