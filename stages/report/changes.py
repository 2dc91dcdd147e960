"""What changed between two revisions, and whether a change is more than noise.

A change of a reproducible figure (a size, a difference of answers) has a cause. A change of a measured figure is noise
until shown otherwise: a speed-up is better or worse if the two 95 % intervals are more than 3 % apart; a count of
samples if the exact 95 % intervals of its share do not overlap; memory and load time if the ranges of launches do not
overlap and the change exceeds what repeats of one model show. Milliseconds of one model count only if the other model
is the same file in both revisions, as its times then show what the machine did. A model that is the same file in both
is neither better nor worse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scipy.special import betaincinv

from stages.report.compared import FIGURES, SPEEDUP, Figure
from stages.report.revision import Revision
from stages.report.text import is_number


class Mark(StrEnum):
    NONE = ""
    BETTER = "better"
    WORSE = "worse"
    NOISE = "within noise"
    SAME_MODEL = "same model"
    NOT_COMPARED = "not compared"


NOTICED = 1.03
"""Two speed-ups do not differ if their intervals are closer than this factor: on a busy machine the intervals of one
model were 1 % apart, and bench, too, calls a difference of 3 % equivalent."""

REPEATS = {"load": 1.2, "memory": 0.03}
"""How far two runs of one model may differ, as a share of the smaller figure: further than repeats differed
(docs/bench.md). Neighbours on the host can double the load time of a whole run."""

MEMORY_STEP_MB = 1.1
"""Resident memory comes in pages and arenas: repeats of one model differ by up to 1 MiB whatever its size."""


@dataclass(frozen=True)
class BaseComparison:
    """A base and the workspace, and how the conditions under which they were measured differ.

    Attributes:
        timing: differences in how the models were timed, as sentences; with any, milliseconds and memory are not
            compared.
        judging: differences in how the answers were judged, as sentences; with any, answers are not compared.
        same_models: which of `fp32` and `int8` are the same file in both.
    """

    base: Revision
    head: Revision
    timing: Sequence[str]
    judging: Sequence[str]
    same_models: Sequence[str]

    @property
    def sides(self) -> tuple[Revision, Revision]:
        return self.base, self.head


@dataclass(frozen=True)
class Change:
    """A figure, its value in the base and here, and what the change means."""

    figure: Figure
    then: Any
    now: Any
    mark: Mark

    @property
    def moved(self) -> bool:
        """Whether a reviewer should see it."""
        return self.then != self.now and self.mark in (Mark.NONE, Mark.BETTER, Mark.WORSE)


def compare(base: Revision, head: Revision) -> BaseComparison:
    timing, judging = [], []
    if base.machine_id is None or base.machine_id != head.machine_id:
        timing.append(f"The base was timed on {'an unknown' if base.machine_id is None else 'another'} machine.")
    for key, label in (("batch", "samples in a call"), ("threads", "threads")):
        then, now = (side.detail("bench", f"measured.{key}") for side in (base, head))
        if then != now and None not in (then, now):
            timing.append(f"The base was timed with another number of {label}: {then}, here {now}.")
    for key, label in (("batch", "batch size"), ("isa", "instruction set"), ("samples", "number of samples")):
        then, now = (_judged(side, key) for side in (base, head))
        if then != now and None not in (then, now):
            judging.append(f"The base was judged with another {label}: {then}, here {now}.")
    hashes = {model: head.model_hash(model) for model in ("fp32", "int8")}
    same = [model for model, digest in hashes.items() if digest is not None and digest == base.model_hash(model)]
    return BaseComparison(base, head, timing, judging, same)


def changes(pair: BaseComparison) -> list[Change]:
    """The changes of all figures, in order, except figures that both revisions lack."""
    pairs = [(figure, figure.of(pair.base), figure.of(pair.head)) for figure in FIGURES]
    return [
        Change(figure, then, now, mark(figure, pair))
        for figure, then, now in pairs
        if then is not None or now is not None
    ]


def mark(figure: Figure, pair: BaseComparison) -> Mark:
    """What the change of one figure means."""
    then, now = figure.of(pair.base), figure.of(pair.head)
    if figure.noise == "machine" and pair.timing:
        return Mark.NOT_COMPARED
    if then == now or not (is_number(then) and is_number(now)):
        return Mark.NONE
    if figure.stage in ("parity", "bench") and set(figure.models) <= set(pair.same_models):
        return Mark.NONE if pair.judging and figure.stage == "parity" else Mark.SAME_MODEL
    no_control = figure.unit == "ms" and not {"fp32", "int8"} - set(figure.models) <= set(pair.same_models)
    if no_control or figure.better == "neither" or (figure.stage == "parity" and pair.judging):
        return Mark.NONE
    if not _beyond_noise(figure, pair):
        return Mark.NOISE
    return Mark.BETTER if (now < then) == (figure.better == "lower") else Mark.WORSE


def speedup_mark(then: Sequence[float], now: Sequence[float]) -> Mark:
    """Compare two 95 % intervals, each (low, high), of a speed-up."""
    if now[0] > then[1] * NOTICED:
        return Mark.BETTER
    return Mark.WORSE if now[1] * NOTICED < then[0] else Mark.NOISE


def _beyond_noise(figure: Figure, pair: BaseComparison) -> bool:
    """Whether the change of a figure exceeds its noise, see `Figure.noise`."""
    then, now = figure.of(pair.base), figure.of(pair.head)
    if figure.noise == "nothing":
        return True
    if figure.noise == "samples":
        return _shares_differ(figure, pair)
    if figure.key in (SPEEDUP.key, "latency.int8_p50_ms"):
        # Both models take turns in one process, so the ratio does not depend on what slows the machine; fp32 is the
        # same file in both revisions, so INT8 became faster if and only if the ratio grew.
        ends = [[side.value("bench", f"speedup.{end}") for end in ("low95", "high95")] for side in pair.sides]
        return all(map(is_number, ends[0] + ends[1])) and speedup_mark(ends[0], ends[1]) is not Mark.NOISE
    spreads = [side.detail("bench", f"spread.{figure.key}") for side in pair.sides]
    if all(spreads) and max(map(min, spreads)) <= min(map(max, spreads)):
        return False  # the ranges over the launches overlap
    step = MEMORY_STEP_MB if figure.key.startswith("memory.") else 0.0
    share = REPEATS[figure.key.split(".")[0]] + _drift(figure, pair)
    return bool(abs(now - then) > max(step, share * min(abs(then), abs(now))))


def _drift(figure: Figure, pair: BaseComparison) -> float:
    """How far the other model's figure moved, as a share, if that model is the same file: the machine moved it."""
    other = next(model for model in ("fp32", "int8") if model not in figure.models)
    if other not in pair.same_models:
        return 0.0
    key = figure.key.replace(figure.models[0], other)
    then, now = (side.value(figure.stage, key) for side in pair.sides)
    if not (is_number(then) and is_number(now) and then > 0 and now > 0):
        return 0.0
    return float(max(then / now, now / then) - 1)


def _shares_differ(figure: Figure, pair: BaseComparison) -> bool:
    """Whether the exact 95 % intervals of two shares of samples are disjoint; of task metrics only accuracy is one."""
    if figure.key.startswith("task.") and not all(
        side.detail("parity", "task.metric") == "accuracy" for side in pair.sides
    ):
        return False
    intervals = []
    for side in pair.sides:
        samples = side.value("parity", "judged.samples")
        if not samples:
            return False
        share = side.value("parity", figure.key) if figure.key.startswith("task.") else None
        count = side.value("parity", "decisions.flips") if share is None else round(share * samples)
        if count is None:
            return False
        intervals.append(binomial_interval(count, samples))
    (low, high), (other_low, other_high) = intervals
    return high < other_low or other_high < low


def binomial_interval(count: int, samples: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934), from 0 to 1."""
    low = 0.0 if count == 0 else float(betaincinv(count, samples - count + 1, 0.025))
    high = 1.0 if count == samples else float(betaincinv(count + 1, samples - count, 0.975))
    return low, high


def _judged(side: Revision, key: str) -> Any:
    value = side.detail("parity", f"judged.{key}")
    return side.value("parity", f"judged.{key}") if value is None else value
