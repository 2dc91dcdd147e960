"""Read both sides of a report and compare them; a dvc.yaml may run the pipeline in one folder per model."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.common.base import paths, pipeline
from stages.common.base.errors import StageError
from stages.common.rule import Rule
from stages.report import changes, revision
from stages.report.changes import BaseComparison
from stages.report.revision import Revision


@dataclass(frozen=True)
class Report:
    """The workspace, the rules of gate and parity, and the comparison with a base (None without a base)."""

    head: Revision
    rules: Sequence[Rule]
    comparison: BaseComparison | None


def run(base: str | None) -> Report:
    """Read the workspace, and the git revision `base` unless it is None.

    Raises:
        StageError: metrics of the workspace are missing or of another version, or git does not know the base.
    """
    head = revision.workspace()
    rules = [*head.rules("gate"), *head.rules("parity")]
    return Report(head, rules, None if base is None else changes.compare(revision.at(base), head))


def by_model(base: str | None) -> dict[str, Report]:
    """The report of the working directory, under an empty name; if it has no metrics, one per model below it.

    Raises:
        StageError: metrics are missing, or git does not know the base.
    """
    gates = [stage for stage in pipeline.below() if stage.room == "gate"]
    if paths.METRICS.exists() or not gates or all(gate.folder == Path.cwd() for gate in gates):
        return {"": run(base)}
    reports = {}
    for gate in gates:
        name = gate.folder.relative_to(Path.cwd()).as_posix()
        with contextlib.chdir(gate.folder):
            try:
                reports[name] = run(base)
            except StageError as error:
                raise StageError(f"{name}: {error}") from error
    return reports
