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
    """The workspace, the rules of gate and parity, and the comparison with a base, if any."""

    head: Revision
    rules: Sequence[Rule]
    comparison: BaseComparison | None


def run(base: str | None) -> Report:
    """Read the workspace, and the git revision `base`, if given.

    Raises:
        StageError: the workspace has no metrics, or git does not know the base.
    """
    head = revision.workspace()
    rules = [*_rules(head, "gate"), *_rules(head, "parity")]
    return Report(head, rules, None if base is None else changes.compare(revision.at(base), head))


def by_model(base: str | None) -> dict[str, Report]:
    """The report of the working directory, under an empty name; if it has no metrics, one per model of its dvc.yaml.

    Raises:
        StageError: metrics are missing, or git does not know the base.
    """
    gates = [stage for stage in pipeline.stages_of(Path(pipeline.DVC_YAML)) if stage.room == "gate"]
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


def _rules(head: Revision, stage: str) -> list[Rule]:
    path = {"gate": paths.GATE_DETAILS, "parity": paths.PARITY_DETAILS}[stage]
    try:
        return [Rule.from_json(tree) for tree in head.details[stage].get("rules", [])]
    except (KeyError, TypeError, ValueError) as error:
        raise StageError(f"The rules in {path.as_posix()} are of another version. Run {stage} again.") from error
