"""Ranking finished experiments, and their Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stages.common.rule import Outcome, Rule
from stages.report.experiments.reading import BASELINE, Finished, Sweep
from stages.report.revision import Revision, Tree
from stages.report.text import is_number


@dataclass(frozen=True)
class Row:
    """An experiment as a row of the table.

    Attributes:
        size: of the INT8 file in MB. NaN stands for an unknown figure, here and below.
        error: the largest absolute difference from fp32.
        speedup: ratio, and both ends of its 95 % interval.
        margin: the smallest margin of a parity rule, as a share of its limit, and the name of that rule.
        front: whether it is on the Pareto front of size, error and speed-up.
    """

    name: str
    revision: Revision
    open: bool
    deploy: str
    size: float
    error: float
    speedup: tuple[float, float, float]
    margin: tuple[float, str]
    front: bool = False

    @property
    def comparable(self) -> bool:
        """Whether size, error and speed-up are known."""
        return not math.isnan(self.size + self.error + self.speedup[0])

    @property
    def ships_int8(self) -> bool:
        """Whether the gate deploys the INT8 model."""
        return self.open and self.deploy == "int8"


def rank(sweep: Sweep) -> dict[str, list[Row]]:
    """Rows by machine, best first; the machine that timed the most experiments comes first.

    INT8 models that pass the gate come before fp32, and fp32 before a closed gate; within each, the Pareto front first,
    then by the low end of the speed-up's interval, as a lucky measurement has a wide one.
    """
    machines: dict[str, list[Row]] = {}
    for finished in sweep.finished:
        machines.setdefault(finished.revision.machine_id or "unknown", []).append(row(finished))
    order = sorted(machines, key=lambda machine: (-sum(row.name != BASELINE for row in machines[machine]), machine))
    return {machine: _ordered(machines[machine]) for machine in order}


def row(finished: Finished) -> Row:
    """The figures of one experiment."""
    side = finished.revision
    ratio, low, high = (_figure(side, "bench", f"speedup.{end}") for end in ("ratio", "low95", "high95"))
    return Row(
        finished.name,
        side,
        side.value("gate", "open") is True,
        str(side.value("gate", "deploy") or "unknown"),
        _figure(side, "quantize", "size.int8_mb"),
        _figure(side, "parity", "diff.max_abs"),
        (ratio, low, high),
        smallest_margin(side.rules("parity")),
    )


def smallest_margin(rules: Sequence[Rule]) -> tuple[float, str]:
    """The smallest margin of the rules that apply, as a share of the limit; NaN if none has one."""
    margins = [
        (rule.margin / abs(rule.limit), rule.name)
        for rule in rules
        if rule.outcome in (Outcome.PASSED, Outcome.FAILED)
        and rule.margin is not None
        and isinstance(rule.limit, int | float)
        and rule.limit
    ]
    return min(margins, default=(math.nan, ""))


def dominates(one: Row, other: Row) -> bool:
    """Whether `one` is nowhere worse and somewhere better: smaller, more exact, or faster.

    The faster row is the one whose interval lies above the other's; if the intervals overlap, neither row is faster.
    """
    if not (one.comparable and other.comparable):
        return False
    faster, slower = one.speedup[1] > other.speedup[2], one.speedup[2] < other.speedup[1]
    nowhere_worse = one.size <= other.size and one.error <= other.error and not slower
    return nowhere_worse and (one.size < other.size or one.error < other.error or faster)


def best(rows: Sequence[Row]) -> Row | None:
    """The row to apply: the first, if it ships INT8."""
    return rows[0] if rows and rows[0].ships_int8 else None


def differing_params(sides: Sequence[Tree]) -> list[str]:
    """The keys of `params.yaml` whose values differ."""
    keys = sorted({key for side in sides for key in side})
    return [key for key in keys if len({repr(side.get(key)) for side in sides}) > 1]


def _ordered(rows: Sequence[Row]) -> list[Row]:
    marked = [replace(row, front=row.comparable and not any(dominates(other, row) for other in rows)) for row in rows]
    slow = {row.name: math.inf if math.isnan(row.speedup[1]) else -row.speedup[1] for row in marked}
    return sorted(marked, key=lambda row: (not row.ships_int8, not row.open, not row.front, slow[row.name], row.name))


def _figure(side: Revision, stage: str, key: str) -> float:
    value = side.value(stage, key)
    return float(value) if is_number(value) else math.nan
