"""Build models until none is left that is worth it, in an order that learns much from few of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import onnx_ir as ir
from tqdm import tqdm

from stages.common.base.params import Params
from stages.quantize.auto.choices import CHOICES, KEPT, PADDED
from stages.quantize.auto.judge import Candidate, Judge, Make, judged
from stages.quantize.auto.learn import LEVEL
from stages.quantize.auto.options import Measured
from stages.quantize.auto.problem import Picks, Point, Prices, Problem, point
from stages.quantize.auto.race import Trial, racers, side_by_side
from stages.quantize.auto.search import (
    Try,
    back_towards,
    best_that_passes,
    exchanges,
    floats_stored,
    store_floats,
    without_gaps,
)
from stages.quantize.auto.timing import faster

TRIAL_SECONDS = 0.4
"""Seconds to time each model together with the float one, to correct the predicted times."""

UNIFORM = 5
"""One trial in this many may be a model with one choice everywhere: it shows how long its kernels really take."""

WORTH = 1.5
"""Such a model is built if it is predicted to be at most this many times as slow, or large, as the best one."""

BACK_TRIALS = 4
"""Most trials to move nodes towards a faster model that failed."""

STORED_FURTHER, FURTHER_TRIALS = 3, 2
"""For this many of the best sets of kernels, more float weights are stored, in at most this many trials each."""


@dataclass
class Exploration:
    """The state of a search: the trials so far, and their limits."""

    measured: Measured
    make: Make
    fault: Callable[[ir.Model], str]
    judge: Judge
    params: Params
    progress: tqdm
    ends: float
    trials: list[Trial] = field(default_factory=list)

    def known(self) -> dict[Picks, "Trial"]:
        """The trials by assignment."""
        return {trial.candidate.assignment: trial for trial in self.trials}

    def tries(self, origin: str, spare: int = 0) -> Try:
        """The function that builds the models of one step of the search, and leaves some trials for later steps."""
        return partial(self._attempt, origin=origin, limit=self.most - spare)

    def _attempt(self, assignment: Picks, origin: str, limit: int) -> Trial | None:
        """Build and judge an assignment, or return its earlier trial; None if it is all float, or no trial is left."""
        problem = self.measured.problem
        choices = {name: choice for name, choice in problem.named(assignment).items() if name in self.measured.names}
        if all(choice == KEPT for choice in choices.values()):
            return None
        for trial in self.trials:
            if trial.candidate.choices == choices:
                return trial
        if len(self.trials) >= limit or (self.passing and time.monotonic() > self.ends):
            return None
        candidate = judged(assignment, choices, self.make, self.fault, self.judge)
        self.trials.append(Trial(origin, candidate, point(problem, assignment), self._us(candidate)))
        self.progress.update()
        passing = [trial.us for trial in self.passing if trial.us]
        best = f"best {self.measured.float_us / min(passing):.2f}x" if passing else "none passes"
        self.progress.set_postfix_str(f"{best}, {max(0.0, self.ends - time.monotonic()):.0f} s left")
        return self.trials[-1]

    def _us(self, candidate: Candidate) -> float | None:
        """Microseconds of a call, by its ratio to the float model's; None if the model does not run."""
        if candidate.model is None:
            return None
        rounds = side_by_side([candidate.model], self.judge, TRIAL_SECONDS, 2 * self.measured.float_us)
        return self.measured.float_us / faster(rounds, 1).ratio

    @property
    def passing(self) -> list[Trial]:
        """The trials that pass every rule with the margin to spare."""
        return [trial for trial in self.trials if trial.candidate.passes(self.margin)]

    def best(self, prices: Prices) -> Picks:
        """The assignment of the best trial that passes, by its measured time and size."""
        return min(self.passing, key=lambda trial: prices.value(trial.measured)).candidate.assignment

    @property
    def most(self) -> int:
        """How many models may be built."""
        return self.params.quantize.search.max_evals

    @property
    def margin(self) -> float:
        """The share of each tolerance that must be left."""
        return self.params.quantize.search.margin


def explore(state: Exploration, prices: Prices) -> Problem:
    """Build models until no trial is left, or no model is worth one; returns the problem as the trials corrected it."""
    measured, goal = state.measured, 1 - state.margin
    # One trial is left for the model with the least error, all stored.
    for name, assignment in _uniform(measured, prices)[: max(1, state.most // UNIFORM)]:
        state.tries(f"all {name}", spare=1)(assignment)
    predicted = state.tries("predicted", spare=1)
    passes, fails, learnt = best_that_passes(measured.problem, prices, predicted, goal, state.known())
    if passes is not None:
        state.tries("without gaps")(without_gaps(learnt, passes, len(measured.names)))
    store_floats(learnt, prices, passes or learnt.all_float, state.tries("floats stored"), goal)
    if passes is not None and fails is not None:
        add_back = state.tries("add back")
        back_towards(learnt, passes, fails, add_back, goal=goal, value=prices.value, most=BACK_TRIALS)
    if state.passing:
        _exchange(state, learnt, prices, goal)
        _store_more(state, learnt, prices, goal)
    return learnt


def _exchange(state: Exploration, learnt: Problem, prices: Prices, goal: float) -> None:
    """Exchange choices of the best model for others that may be better, until the best one stays the same."""
    exchanged, start = state.tries("exchanged", spare=STORED_FURTHER), None
    while (best := state.best(prices)) != start:
        start = best
        for assignment in exchanges(learnt, prices, start, goal):
            exchanged(assignment)


def _store_more(state: Exploration, learnt: Problem, prices: Prices, goal: float) -> None:
    """Store more float weights of the best models, which then are smaller and as fast."""
    more_stored = state.tries("more stored")
    for trial in racers(state.passing, prices.value)[:STORED_FURTHER]:
        reached = trial.candidate.assignment
        stored = floats_stored(learnt, reached)
        back_towards(learnt, reached, stored, more_stored, goal=goal, value=_size, most=FURTHER_TRIALS)


def _size(point: Point) -> float:
    return point.size


def _uniform(measured: Measured, prices: Prices) -> list[tuple[str, Picks]]:
    """Assignments with one choice everywhere: the best of each method, or the most exact of about equal ones.

    Filters of zeros are left out: they only pay at single nodes.
    """
    problem = measured.problem
    names = {option.choice for options_ in problem.options[: len(measured.names)] for option in options_}
    points = {name: point(problem, problem.uniform(name)) for name in sorted(names - {KEPT, PADDED})}
    values = {name: replace(prices, noise=0.0).value(points[name]) for name in points}
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
