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
from stages.quantize.auto.choices import CHOICES, KEPT, PADDED
from stages.quantize.auto.judge import Candidate, Judge, Make, judged
from stages.quantize.auto.learn import LEVEL
from stages.quantize.auto.options import Measured
from stages.quantize.auto.problem import Picks, Problem, Weights, point
from stages.quantize.auto.race import Trial, race, racers, side_by_side, slower, winner
from stages.quantize.auto.search import (
    back_towards,
    best_that_passes,
    exchanges,
    floats_stored,
    store_floats,
    without_gaps,
)
from stages.quantize.auto.timing import faster
from stages.quantize.correction import Correction
from stages.quantize.methods import Assignment
from stages.quantize.methods.static.ranges import Range
from stages.quantize.outcome import NodeOutcome, kept

TRIAL_SECONDS = 0.4
"""Seconds to time each model together with the float one, to correct the predicted times."""

UNIFORM = 5
"""One trial in this many may be a model with one choice everywhere, which shows how long its kernels really take."""

WORTH = 1.5
"""Such a model is built if it is predicted to be at most this many times as slow, or large, as the best one."""

BACK_TRIALS = 4
"""Most trials to move nodes towards a faster model that failed."""

STORED_FURTHER, FURTHER_TRIALS = 3, 2
"""Of this many sets of kernels, the best ones, more float weights are stored, in at most so many trials each."""


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


@dataclass
class _Search:
    """The state of a search: the trials so far, and their limits."""

    measured: Measured
    make: Make
    fault: Callable[[ir.Model], str]
    judge: Judge
    params: Params
    progress: tqdm
    ends: float
    limit: int = 0
    trials: list[Trial] = field(default_factory=list)
    origin: str = ""

    def known(self) -> dict[Picks, "Trial"]:
        """The trials by assignment."""
        return {trial.candidate.assignment: trial for trial in self.trials}

    def attempt(self, assignment: Picks) -> Trial | None:
        """Build and judge an assignment, or return its earlier trial; None if it is all float, or no trial is left."""
        problem = self.measured.problem
        choices = {name: choice for name, choice in problem.named(assignment).items() if name in self.measured.names}
        if all(choice == KEPT for choice in choices.values()):
            return None
        for trial in self.trials:
            if trial.candidate.choices == choices:
                return trial
        if len(self.trials) >= self.limit or (self.passing and time.monotonic() > self.ends):
            return None
        candidate = judged(assignment, choices, self.make, self.fault, self.judge)
        self.trials.append(Trial(self.origin, candidate, point(problem, assignment), self._us(candidate)))
        self.progress.update()
        passing = [trial.us for trial in self.passing if trial.us]
        best = f"best {self.measured.float_us / min(passing):.2f}x" if passing else "none passes"
        self.progress.set_postfix_str(f"{best}, {max(0.0, self.ends - time.monotonic()):.0f} s left")
        return self.trials[-1]

    def _us(self, candidate: Candidate) -> float | None:
        """Time of a call, relative to the float model's time; None if the model does not run."""
        if candidate.model is None:
            return None
        rounds = side_by_side([candidate.model], self.judge, TRIAL_SECONDS, 2 * self.measured.float_us)
        return self.measured.float_us / faster(rounds, 1).ratio

    @property
    def passing(self) -> list[Trial]:
        """The trials that hold every rule with the margin to spare."""
        return [trial for trial in self.trials if trial.candidate.passes(self.margin)]

    def best(self, weights: Weights) -> Picks:
        """The assignment of the best trial that passes, by its measured time and size."""
        return min(self.passing, key=lambda trial: weights.value(trial.measured)).candidate.assignment

    @property
    def margin(self) -> float:
        """The share of each tolerance that must be left."""
        return self.params.quantize.search.margin


def find(
    model: ir.Model,
    nodes: Sequence[Assignment],
    judge: Judge,
    params: Params,
    *,
    make: Make,
    fault: Callable[[ir.Model], str],
    recipe: Recipe,
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

    Raises:
        StageError: no model passes.
    """
    search = params.quantize.search
    ends = time.monotonic() + search.max_seconds
    measured = options.measured(model, nodes, judge.probe_feeds(), params)
    weights = options.weights(measured.problem, search.objective)
    with tqdm(desc="search", total=search.max_evals, unit=" trials", leave=False, disable=None) as progress:
        state = _Search(measured, make, fault, judge, params, progress, ends)
        learnt = _try_models(state, weights)
    passing, reason = state.passing, ""
    if state.trials and not passing:
        raise StageError(_nothing_passes(state.trials, search, len(nodes)))
    if not state.trials and any(len(choices) > 1 for choices in learnt.options):
        reason = "no choice at any node is predicted to be better than float"
    smaller = [trial for trial in passing if trial.candidate.size < judge.float_bytes]
    if passing and not smaller:
        least = min(trial.candidate.size for trial in passing)
        reason = f"the smallest model that passes has {least} bytes, the float model {judge.float_bytes}"
    raced = race(racers(smaller, weights.value), judge, measured.float_us)
    won = winner(raced, search.objective, weights.value) if raced else None
    if won is not None:
        reason = slower(won) if search.objective == "latency" else ""
    by_assignment = {trial.candidate.assignment: trial for trial in raced}
    trials = [by_assignment.get(trial.candidate.assignment, trial) for trial in state.trials]
    chosen = won.candidate.assignment if won is not None and not reason else learnt.all_float
    decisions = plan.decisions(learnt, chosen, measured.refused, measured.unmeasured, weights.value)
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


def _try_models(state: _Search, weights: Weights) -> Problem:
    """Build models until no trial is left, or none is worth one; returns the problem as the trials corrected it."""
    measured, most = state.measured, state.params.quantize.search.max_evals
    goal = 1 - state.margin
    state.limit = most - 1  # the last trial is reserved for the model with the least error, all stored
    for name, assignment in _uniform(measured, weights)[: max(1, most // UNIFORM)]:
        state.origin = f"all {name}"
        state.attempt(assignment)
    state.origin = "predicted"
    passes, fails, learnt = best_that_passes(measured.problem, weights, state.attempt, goal, state.known())
    state.limit = most
    if passes is not None:
        state.origin = "without gaps"
        state.attempt(without_gaps(learnt, passes, len(measured.names)))
    state.origin = "floats stored"
    store_floats(learnt, weights, passes or learnt.all_float, state.attempt, goal)
    if passes is not None and fails is not None:
        state.origin = "add back"
        back_towards(learnt, passes, fails, state.attempt, goal=goal, value=weights.value, most=BACK_TRIALS)
    if state.passing:
        state.origin, state.limit = "exchanged", most - STORED_FURTHER
        start: Picks | None = None
        while (best := state.best(weights)) != start:
            start = best
            for assignment in exchanges(learnt, weights, start, goal):
                state.attempt(assignment)
        state.origin, state.limit = "more stored", most
        for trial in racers(state.passing, weights.value)[:STORED_FURTHER]:
            reached = trial.candidate.assignment
            back_towards(
                learnt,
                reached,
                floats_stored(learnt, reached),
                state.attempt,
                goal=goal,
                value=lambda point: point.size,
                most=FURTHER_TRIALS,
            )
    return learnt


def _uniform(measured: Measured, weights: Weights) -> list[tuple[str, Picks]]:
    """Assignments with one choice everywhere: the best of each method, or the most exact of about equal ones.

    Filters of zeros are left out: they only pay at single nodes.
    """
    problem = measured.problem
    names = {option.choice for options_ in problem.options[: len(measured.names)] for option in options_}
    points = {name: point(problem, problem.uniform(name)) for name in sorted(names - {KEPT, PADDED})}
    values = {name: replace(weights, noise=0.0).value(points[name]) for name in points}
    by_method: dict[str, list[str]] = {}
    for name in sorted(values, key=lambda name: values[name]):
        if values[name] <= WORTH * min(values.values()):
            by_method.setdefault(CHOICES[name].method, []).append(name)
    uniform = []
    for best, *others in by_method.values():
        equal = [best, *(name for name in others if values[name] <= (1 + LEVEL) * values[best])]
        name = min(equal, key=lambda name: points[name].noise)
        uniform.append((name, points[name].assignment))
    return uniform


def _nothing_passes(trials: Sequence[Trial], search: Search, nodes: int) -> str:
    nearest = min(trials, key=lambda trial: (trial.candidate.strain, bool(trial.candidate.fault)))
    candidate = nearest.candidate
    if math.isinf(candidate.strain):
        return (
            f"None of the {len(trials)} models that were built can be published: "
            f"{candidate.fault or _failed(candidate.rules)}. "
            "Exclude nodes with quantize.exclude_nodes, or deploy the fp32 model."
        )
    count = sum(choice != KEPT for choice in candidate.choices.values())
    more = "raise quantize.search.max_evals, " if len(trials) >= search.max_evals else ""
    closer = "lower quantize.search.margin, " if candidate.strain <= 1 else ""
    remedies = f"{closer}{more}widen the tolerance, or deploy the fp32 model."
    return (
        f"None of the {len(trials)} models that were built keeps the answers: the best, with {count} of {nodes} nodes "
        f"quantized, uses {candidate.strain:.2f} of a parity tolerance, but only {1 - search.margin:.2g} is allowed "
        f"(quantize.search.margin is reserved for the judge samples). {remedies[0].upper()}{remedies[1:]}"
    )


def _failed(rules: Sequence[Rule]) -> str:
    """The failed rule that has no tolerance to widen, as a clause."""
    rule = max(rules, key=strain)
    return f"the rule {rule.name} fails{f' for {rule.output}' if rule.output else ''}: {rule.message.rstrip('.')}"
