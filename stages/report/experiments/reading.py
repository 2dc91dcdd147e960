"""The experiments of a commit, through DVC's Python API; their figures are in git, as each run committed them."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.base import pipeline
from stages.common.base.errors import StageError
from stages.report import revision
from stages.report.revision import HEADLINES, Revision, Tree

BASELINE = "baseline"
ATTEMPTS = 3


@dataclass(frozen=True)
class Finished:
    """A finished experiment, or the commit that all start from; `name` is what `dvc exp apply` takes."""

    name: str
    revision: Revision


@dataclass(frozen=True)
class Failed:
    """An experiment in which a stage failed. It has no metrics; DVC shows those of the baseline.

    Attributes:
        name: its name, or the start of its revision if it has no name.
        params: `params.yaml`, its keys joined with dots.
        reason: the last line of its output, usually the error.
    """

    name: str
    params: Tree
    reason: str


@dataclass(frozen=True)
class Sweep:
    """The experiments of a commit: finished (with the baseline first) and failed ones, and the number still waiting."""

    commit: str
    finished: Sequence[Finished]
    failed: Sequence[Failed]
    waiting: int


def read() -> Sweep:
    """Read the experiments that start from HEAD.

    Raises:
        StageError: this is not a DVC project in git, its commit has no experiments, or none has metrics here.
    """
    start = revision.at("HEAD")
    baseline = _baseline()
    finished: list[Finished] = []
    failed: list[Failed] = []
    waiting = 0
    for experiment in baseline.experiments or []:
        tip = experiment.revs[0]
        state = experiment.executor.state if experiment.executor else "success"
        name = experiment.name or tip.name or tip.rev[:7]
        if state in ("queued", "running"):
            waiting += 1
        elif state == "failed" or tip.error is not None:
            local = experiment.executor.local if experiment.executor else None
            failed.append(Failed(name, revision.at(tip.rev).params, last_line(local.log if local else None)))
        else:
            finished.append(Finished(name, revision.at(tip.rev)))
    if not (finished or failed or waiting):
        raise StageError("This commit has no experiments. Run some, e.g. `dvc exp run -S quantize.method=static`.")
    if finished and not any(row.revision.metrics["gate"] for row in finished):
        below = [os.path.relpath(stage.folder) for stage in pipeline.below() if stage.room == "gate"]
        raise StageError(
            f"No experiment has {HEADLINES['gate'].as_posix()} in this folder. Run this beside the params.yaml of the "
            f"pipeline{', in ' if below else ''}{' or '.join(below)}."
        )
    if start.metrics["gate"]:
        finished.insert(0, Finished(BASELINE, start))
    return Sweep(
        baseline.rev[:7],
        sorted(finished, key=lambda row: (row.name != BASELINE, row.name)),
        sorted(failed, key=lambda row: row.name),
        waiting,
    )


def _baseline() -> Any:
    """HEAD with its experiments (`dvc.repo.experiments.serialize.ExpState`)."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    for attempt in range(ATTEMPTS):
        try:
            with Repo() as repo:
                return repo.experiments.show(hide_workspace=True)[0]
        except (DvcException, IndexError) as error:
            # While experiments run, DVC may look for the folder of one that has just ended.
            if attempt == ATTEMPTS - 1:
                raise StageError(
                    f"DVC cannot read the experiments: {str(error).rstrip('.')}. Run this in a DVC "
                    "project; if experiments are running, try again."
                ) from error
            time.sleep(1)
    raise AssertionError  # the loop returns or raises


def last_line(log: str | None) -> str:
    """The last line of our own in the log of a failed run: the line of DVC that follows says less."""
    path = Path(log) if log else None
    if path is None or not path.exists():
        return "It failed before a stage started: dvc queue logs, with its name, says where the reason is."
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("Error:")]
    dvc = [line for line in lines if line.startswith("ERROR:")]
    return (own or dvc or lines or ["Its output is empty."])[-1]
