"""The plan: the choice for each node, with the figures that decided; auto writes it, `method: plan` replays it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.base.errors import StageError
from stages.common.base.files import read_json, rounded
from stages.common.graph.weights import WeightedNode
from stages.quantize.auto.choices import CHOICES, KEPT
from stages.quantize.auto.problem import Picks, Point, Problem, point
from stages.quantize.correction import Correction
from stages.quantize.methods.static.ranges import Range

LEAST_US = 0.01
"""Savings below this many microseconds do not count."""


@dataclass(frozen=True)
class Decision:
    """The choice for a node, and why."""

    choice: str
    reason: str
    us: float | None
    float_us: float | None
    noise: float | None

    def as_json(self) -> dict[str, Any]:
        """The decision as written to plan.json."""
        return {
            "choice": self.choice,
            "reason": self.reason,
            "us": rounded(self.us, 3),
            "float_us": rounded(self.float_us, 3),
            "noise": rounded(self.noise, 3),
        }


def decisions(
    problem: Problem,
    assignment: Picks,
    refused: Mapping[str, Mapping[str, str]],
    unmeasured: Mapping[str, str],
    value: Callable[[Point], float],
) -> dict[str, Decision]:
    """The decisions of an assignment, by node name.

    Args:
        problem: the problem that the assignment solves.
        assignment: the chosen assignment.
        refused: why a node cannot have a choice, by node and choice.
        unmeasured: why nodes could not be measured, by name.
        value: the objective that was minimized.
    """
    by_name = {}
    for node, name in enumerate(problem.names):
        option, kept = problem.options[node][assignment[node]], problem.options[node][0]
        if name in unmeasured:
            reason = f"not measured ({unmeasured[name]}): decided by size and by judging whole models"
            by_name[name] = Decision(option.choice, reason, None, None, None)
            continue
        if option.choice != KEPT:
            reason = f"its kernel takes {option.us:.3g} us instead of {kept.us:.3g}"
            if option.us > kept.us:
                reason += ", but smaller weights or cheaper conversions around it outweigh that"
        else:
            reason = _why_float(problem, assignment, node, refused.get(name, {}), value)
        by_name[name] = Decision(option.choice, reason, option.us, kept.us, option.noise)
    return by_name


def _why_float(
    problem: Problem, assignment: Picks, node: int, refused: Mapping[str, str], value: Callable[[Point], float]
) -> str:
    """Why a node stays float: what speaks against its best other option."""
    options = problem.options[node]
    if len(options) == 1:
        return next(iter(refused.values()), "its operator has no INT8 form")
    moved = [point(problem, (*assignment[:node], number, *assignment[node + 1 :])) for number in range(len(options))]
    nearest = min(range(1, len(options)), key=lambda number: value(moved[number]))
    option, before, after = options[nearest], moved[0], moved[nearest]
    kernel, whole, saved = option.us - options[0].us, after.us - before.us, before.size - after.size
    if value(after) < value(before):
        gains = [f"{-whole:.3g} us"] if whole <= -LEAST_US else []
        gains += [f"{saved} bytes"] if saved > 0 else []
        return f"{option.choice} would save {' and '.join(gains)}, which is not worth the error that it adds"
    if whole < LEAST_US:
        return f"{option.choice} would make it neither faster nor smaller"
    if kernel < 0:
        return (
            f"{option.choice} would save {-kernel:.3g} us in its kernel, but conversions around it would cost "
            f"{whole - kernel:.3g} us"
        )
    return f"{option.choice} would take {option.us:.3g} us in its kernel instead of {options[0].us:.3g}"


@dataclass(frozen=True)
class Plan:
    """The content of plan.json: how the float model is prepared, the choices by node name, and calibrated values.

    It holds ranges of activations and corrections of static nodes because another CPU may sum floats in another order,
    which would change them slightly.
    """

    opset: int
    rewrites: tuple[str, ...]
    choices: Mapping[str, str]
    ranges: Mapping[str, Range]
    corrections: Mapping[str, Correction]
    smoothing: Mapping[tuple[str, ...], Sequence[int]]
    place: str

    def check(self, nodes: Sequence[WeightedNode]) -> None:
        """Check that the plan fits a model with these nodes.

        Raises:
            StageError: it is for another model.
        """
        names = {node.name for node in nodes}
        if strangers := sorted(set(self.choices) - names):
            raise StageError(
                f"{self.place} has a choice for {strangers[0]!r}, but this model has no such node with a weight: the "
                "plan is for another model. Run quantize.method auto again."
            )


def read(path: Path) -> Plan:
    """Read a plan.json that method auto wrote.

    Raises:
        StageError: the file is missing, or is not a plan.
    """
    tree = read_json(path, "quantize with quantize.method auto")
    place = path.as_posix()
    try:
        opset, rewrites = int(tree["opset"]), tuple(map(str, tree["rewrites"]))
        choices = {str(name): str(decision["choice"]) for name, decision in tree["nodes"].items()}
        corrections = {str(name): Correction.from_json(numbers) for name, numbers in tree["corrections"].items()}
        smoothing = {(entry["scale"], *entry["nodes"]): list(map(int, entry["powers"])) for entry in tree["smoothing"]}
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in tree["ranges"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StageError(
            f"{place} is not a plan: {error} is missing or invalid. Set quantize.plan to a plan.json that "
            "quantize.method auto wrote."
        ) from error
    for name, choice in choices.items():
        if choice not in (KEPT, *CHOICES):
            known = ", ".join((KEPT, *CHOICES))
            raise StageError(f"{place}: the choice of {name!r} is {choice!r}; allowed: {known}.")
    return Plan(opset, rewrites, choices, ranges, corrections, smoothing, place)
