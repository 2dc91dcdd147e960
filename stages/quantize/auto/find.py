"""Find the best model: measure nodes, predict good assignments, build and judge them, and time the best models."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir
from tqdm import tqdm

from stages.common.base.errors import StageError
from stages.common.base.params import Params, Search
from stages.common.judging.rules import strain
from stages.common.rule import Rule
from stages.quantize.auto import options, plan
from stages.quantize.auto.base import Recipe
from stages.quantize.auto.choices import KEPT
from stages.quantize.auto.explore import Exploration, explore
from stages.quantize.auto.judge import Judge, Make
from stages.quantize.auto.options import Measured
from stages.quantize.auto.race import Trial, race, racers, slower, winner
from stages.quantize.correction import Correction
from stages.quantize.methods import Assignment
from stages.quantize.methods.static.ranges import Known, Range
from stages.quantize.ordering import swaps
from stages.quantize.outcome import NodeOutcome, kept


@dataclass(frozen=True)
class SearchResult:
    """The result of the search.

    Attributes:
        trial: the winner; None if the float model is better.
        reason: why the float model is better; empty if it is not.
        decisions: the choice for each node, and why, by name.
        trials: all trials, in order.
        measured: the measurements that predictions are based on.
        margin: the share of each tolerance that must be left.
        objective: `latency` or `size`.
        recipe: how the float model was prepared.
        ranges: the calibrated ranges of activations, by name.
        corrections: corrections of the winner's static nodes, by name.
        smoothing: smoothing of the winner's activations; see `Known`.
    """

    trial: Trial | None
    reason: str
    decisions: Mapping[str, plan.Decision]
    trials: Sequence[Trial]
    measured: Measured
    margin: float
    objective: str
    recipe: Recipe
    ranges: Mapping[str, Range] = field(default_factory=dict)
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    smoothing: Mapping[tuple[str, ...], Sequence[int]] = field(default_factory=dict)

    @property
    def model(self) -> ir.Model | None:
        """The quantized model; None if the float model is better."""
        return self.trial.candidate.model if self.trial is not None else None

    @property
    def outcomes(self) -> dict[str, NodeOutcome]:
        """The outcomes by node name, with the reasons of the choices."""
        of_winner = self.trial.candidate.outcomes if self.trial is not None else {}
        outcomes = {name: of_winner.get(name, kept("")) for name in self.measured.names}
        return {
            name: replace(outcome, reason=self.reason or self._reason(name, outcome))
            for name, outcome in outcomes.items()
        }

    def _reason(self, name: str, outcome: NodeOutcome) -> str:
        decision = self.decisions[name]
        if decision.choice != KEPT and not outcome.quantized:
            return outcome.reason
        return f"{decision.choice}: {decision.reason}"


def find(
    model: ir.Model,
    nodes: Sequence[Assignment],
    judge: Judge,
    params: Params,
    *,
    make: Make,
    fault: Callable[[ir.Model], str],
    recipe: Recipe,
    calibration: Known,
) -> SearchResult:
    """Search for the best model that passes.

    Args:
        model: the clean float model.
        nodes: its nodes that may be quantized.
        judge: judges candidates by parity's rules.
        params: all params; `quantize.search`, `serving` and `parity` are read.
        make: builds a model from choices.
        fault: returns why a model must not be published, empty if it may.
        recipe: how `model` was prepared.
        calibration: the calibration samples that `make` uses.

    Raises:
        StageError: no model passes.
    """
    search = params.quantize.search
    ends = time.monotonic() + search.max_seconds
    measured = options.measured(model, nodes, judge.probe_feeds(), params, calibration)
    prices = options.prices(measured.problem, search.objective)
    with tqdm(desc="search", total=search.max_evals, unit=" trials", leave=False, disable=None) as progress:
        exploration = Exploration(measured, make, fault, judge, params, progress, ends)
        learnt = explore(exploration, prices)
    passing, reason = exploration.passing, ""
    if exploration.trials and not passing:
        raise StageError(f"{_nothing_passes(exploration.trials, search, len(nodes))} {swaps(model)}".rstrip())
    if not exploration.trials and any(len(choices) > 1 for choices in learnt.options):
        reason = "no choice at any node is predicted to be better than float"
    smaller = [trial for trial in passing if trial.candidate.size < judge.float_bytes]
    if passing and not smaller:
        least = min(trial.candidate.size for trial in passing)
        reason = f"the smallest model that passes has {least} bytes, and the float model {judge.float_bytes}"
    raced = race(racers(smaller, prices.value), judge, measured.float_us)
    won = winner(raced, search.objective, prices.value) if raced else None
    if won is not None:
        reason = slower(won) if search.objective == "latency" else ""
    by_assignment = {trial.candidate.assignment: trial for trial in raced}
    trials = [by_assignment.get(trial.candidate.assignment, trial) for trial in exploration.trials]
    chosen = won.candidate.assignment if won is not None and not reason else learnt.all_float
    decisions = plan.decisions(learnt, chosen, measured.refused, measured.unmeasured, prices.value)
    return SearchResult(
        None if reason else won,
        reason,
        {name: decision for name, decision in decisions.items() if name in measured.names},
        trials,
        measured,
        search.margin,
        search.objective,
        recipe,
    )


def _nothing_passes(trials: Sequence[Trial], search: Search, nodes: int) -> str:
    nearest = min(trials, key=lambda trial: (trial.candidate.strain, bool(trial.candidate.fault)))
    candidate = nearest.candidate
    if math.isinf(candidate.strain):
        return (
            f"No model can be published ({len(trials)} built): "
            f"{candidate.fault or _failed(candidate.rules)}. "
            "Exclude nodes with quantize.exclude_nodes, or deploy the fp32 model."
        )
    count = sum(choice != KEPT for choice in candidate.choices.values())
    more = "raise quantize.search.max_evals, " if len(trials) >= search.max_evals else ""
    closer = "lower quantize.search.margin, " if candidate.strain <= 1 else ""
    remedies = f"{closer}{more}widen the tolerance, or deploy the fp32 model."
    return (
        f"No model keeps the answers ({len(trials)} built): the best, with {count} of {nodes} nodes quantized, "
        f"uses {candidate.strain:.2f} times a parity tolerance, but only {1 - search.margin:.2g} is allowed "
        f"(quantize.search.margin is reserved for the judge samples). {remedies[0].upper()}{remedies[1:]}"
    )


def _failed(rules: Sequence[Rule]) -> str:
    """The failed rule, which has no tolerance to widen, as a clause."""
    rule = max(rules, key=strain)
    return f"the rule {rule.name} fails{f' for {rule.output}' if rule.output else ''}: {rule.message.rstrip('.')}"
