"""Read both sides of a report and compare them."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.rule import Rule
from stages.report import changes, revision
from stages.report.changes import Change, Conditions
from stages.report.revision import Revision


@dataclass(frozen=True)
class Comparison:
    """What changed between two revisions.

    Attributes:
        base: the revision compared with.
        conditions: under what both were measured.
        changes: every figure in both.
    """

    base: Revision
    conditions: Conditions
    changes: Sequence[Change]


@dataclass(frozen=True)
class Report:
    """What there is to report.

    Attributes:
        head: the workspace.
        rules: those of gate, then those of parity.
        comparison: with the base; None without one.
    """

    head: Revision
    rules: Sequence[Rule]
    comparison: Comparison | None


def run(base: str | None) -> Report:
    """Read the workspace, and `base` (a revision in git) if one is named.

    Raises:
        StageError: the workspace has no metrics, or git does not know the base.
    """
    head = revision.workspace()
    rules = [*_rules(head, "gate"), *_rules(head, "parity")]
    return Report(head, rules, None if base is None else compare(revision.at(base), head))


def compare(base: Revision, head: Revision) -> Comparison:
    """Compare two revisions."""
    context = changes.conditions(base, head)
    return Comparison(base, context, changes.changes(base, head, context))


def _rules(head: Revision, stage: str) -> list[Rule]:
    path = {"gate": paths.GATE_DETAILS, "parity": paths.PARITY_DETAILS}[stage]
    try:
        return [Rule.from_json(tree) for tree in head.details[stage].get("rules", [])]
    except (KeyError, TypeError, ValueError) as error:
        raise StageError(f"The rules in {path.as_posix()} are of another version. Run {stage} again.") from error
