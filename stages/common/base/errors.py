"""Errors that a user may see. Each says what is wrong, with the value and the place, and what to do."""

from pathlib import Path


class StageError(Exception):
    """The stage cannot do its job. `str()` is the message for the user; the process exits with `exit_code`."""

    exit_code = 1


class ParamsError(StageError):
    """A key or value in `params.yaml` is not allowed."""

    exit_code = 2


class MissingInputError(StageError):
    """An input of the stage, which an earlier stage writes, is missing."""

    def __init__(self, path: Path, made_by: str) -> None:
        super().__init__(f"Missing {path.as_posix()}. Run {made_by} first.")
