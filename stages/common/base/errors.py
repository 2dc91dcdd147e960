"""Errors that a user can meet. Each is one sentence: what is wrong, with the value and the place, and what to do."""

from pathlib import Path


class StageError(Exception):
    """The stage cannot do its job. `str()` is the sentence for the user; the process exits with `exit_code`."""

    exit_code = 1


class ParamsError(StageError):
    """A key or a value of `params.yaml` that no stage can work with."""

    exit_code = 2


class MissingInputError(StageError):
    """An input of the stage that an earlier stage should have written."""

    def __init__(self, path: Path, made_by: str) -> None:
        super().__init__(f"Missing {path.as_posix()}. Run {made_by} first.")
