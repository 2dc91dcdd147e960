"""Which assignments are built as real models, and in which order. Pure.

Noise is the squared share of a tolerance that is used (strain), predicted from single nodes. The best assignment within
the limit is built, its measured strain and time correct the prediction (`learn`), and so on. Variants of the best model
follow: float weights stored in 8 bits, nodes moved back towards a faster model that failed, and choices exchanged that
are predicted to take about the same time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from stages.quantize.auto.budget import cheapest
from stages.quantize.auto.choices import DYNAMIC, STATIC, STORED, kernel
from stages.quantize.auto.learn import LEVEL_US, Seen, corrected
from stages.quantize.auto.problem import FLOAT, Option, Picks, Point, Prices, Problem, point


class Tried(Protocol):
    """The figures of an assignment that was built as a real model."""

    @property
    def strain(self) -> float:
        """The largest share of a tolerance that a rule uses."""
        ...

    @property
    def us(self) -> float | None:
        """Time of a call, in microseconds; None if it was not timed."""
        ...


NEAR = 0.01
"""A smaller predicted gain, as a share, is not worth a trial: the race would call it equal."""

TIGHTER = 0.8
"""The factor on the allowed noise if the best assignment within it has been tried already."""

TIGHTENINGS = 24
"""Most times to tighten the allowed noise."""

STORED_TRIALS = 5
"""Most trials of `store_floats`."""

CLEARLY = 0.95
"""A model that takes less than this share of the float model's time is clearly faster; others may lose the race."""

HARMLESS = 0.02
"""An embedding table whose noise is below this share of the allowed noise is quantized for its size alone."""

EXCHANGES = 4
"""Most variants of the best assignment, with one choice replaced by another, to build."""

DOUBT = 0.2
"""The relative error to expect in the predicted time of a kernel, in addition to `LEVEL_US`."""

DOUBT_OF_NOISE = 1.5
"""The factor by which the predicted noise of a model may exceed its real noise: about 2 dB."""

Try = Callable[[Picks], Tried | None]
"""Builds and judges an assignment; returns None if it quantizes nothing, or if no trial is left."""


def best_that_passes(
    problem: Problem, prices: Prices, attempt: Try, goal: float, known: Mapping[Picks, Tried]
) -> tuple[Picks | None, Picks | None, Problem]:
    """The best assignment that passes, by as few trials as predictions allow.

    Args:
        problem: the problem to solve.
        prices: the prices of time and size.
        attempt: builds and judges an assignment.
        goal: the largest strain that passes.
        known: earlier trials, which only correct times: one choice everywhere says little about the noise of a mixture.

    Returns:
        The best assignment that passes, or None; the closest better assignment that failed, or None; and the
        corrected problem.
    """
    tried: dict[Picks, Tried] = dict(known)
    tightened = 0

    def learnt() -> Problem:
        strains = {picks: None if picks in known else trial.strain for picks, trial in tried.items()}
        return corrected(problem, {picks: Seen(strains[picks], trial.us) for picks, trial in tried.items()})

    def passing(model: Problem) -> Point | None:
        points = (point(model, picks) for picks, trial in tried.items() if trial.strain <= goal and any(picks))
        return min(points, key=prices.value, default=None)

    model = learnt()
    while tightened < TIGHTENINGS:
        candidate, best = cheapest(model, prices, goal**2 * TIGHTER**tightened), passing(model)
        if not any(candidate.assignment):
            break
        if best is not None and prices.value(candidate) > (1 - NEAR) * prices.value(best):
            break
        if candidate.assignment in tried:
            tightened += 1
            continue
        trial = attempt(candidate.assignment)
        if trial is None:
            break
        tried[candidate.assignment] = trial
        model = learnt()
    best = passing(model)
    failing = [point(model, picks) for picks, trial in tried.items() if trial.strain > goal and picks not in known]
    if best is not None:
        failing = [failed for failed in failing if prices.value(failed) < prices.value(best)]
    nearest = max(failing, key=prices.value, default=None)
    return best.assignment if best else None, nearest.assignment if nearest else None, model


def without_gaps(problem: Problem, assignment: Picks, count: int) -> Picks:
    """The assignment with all nodes between static ones static too, where possible: it has fewer conversions.

    The cost of conversions around small convolutions is only predicted roughly, so a real model has to show whether
    this pays.

    Args:
        problem: the problem; its first `count` nodes are in the order of the graph.
        assignment: the assignment to start from.
        count: number of nodes with a weight.
    """
    static = problem.uniform(STATIC)
    # Products have float outputs, so their conversions are the same wherever they are.
    places = [node for node in range(count) if problem.options[node][assignment[node]].gives == STATIC]
    between = set(range(places[0], places[-1]) if places else ()) - set(places)
    return tuple((node in between and static[node]) or own for node, own in enumerate(assignment))


def store_floats(problem: Problem, prices: Prices, passes: Picks, attempt: Try, goal: float) -> None:
    """Try models without float weights, which are smaller and may be as fast.

    First the best assignment that passes, with its float nodes stored. Unless that model passes and is clearly faster
    than the float model: all nodes stored, then the assignments without float weights that are predicted to be best.

    Args:
        problem: the problem to solve.
        prices: the prices of time and size.
        passes: the best assignment that passes.
        attempt: builds and judges an assignment; called at most `STORED_TRIALS` times.
        goal: the largest strain that passes.
    """
    numbers, left = _in_8_bits(problem, HARMLESS * goal**2), STORED_TRIALS
    options = tuple((node[number], *node[1:]) for node, number in zip(problem.options, numbers, strict=True))
    stored = replace(problem, options=options)

    def attempt_stored(assignment: Picks) -> Tried | None:
        nonlocal left
        left -= 1
        chosen = tuple(number or kept for number, kept in zip(assignment, numbers, strict=True))
        return attempt(chosen) if left >= 0 else None

    if not any(numbers):
        return
    trial = attempt_stored(passes)
    if trial is not None and trial.strain <= goal and (trial.us or 0) < CLEARLY * problem.us(problem.all_float):
        return
    attempt_stored(problem.all_float)
    if problem.noise(numbers) < goal**2:
        best_that_passes(stored, prices, attempt_stored, goal, {})


def _in_8_bits(problem: Problem, harmless: float) -> Picks:
    """`stored` everywhere; tables that cannot be stored are dynamic if the noise is negligible."""

    def table(options: Sequence[Option]) -> int:
        fits = (option.choice == DYNAMIC and option.takes == FLOAT and option.noise <= harmless for option in options)
        return next((number for number, fit in enumerate(fits) if fit), 0)

    return tuple(
        number or table(options) for number, options in zip(problem.uniform(STORED), problem.options, strict=True)
    )


def floats_stored(problem: Problem, assignment: Picks) -> Picks:
    """The assignment with its float weights stored, where possible: it is as fast, and smaller."""
    return tuple(own or number for own, number in zip(assignment, problem.uniform(STORED), strict=True))


def back_towards(
    problem: Problem,
    reached: Picks,
    better: Picks,
    attempt: Try,
    *,
    goal: float,
    value: Callable[[Point], float],
    most: int,
) -> list[Picks]:
    """Move nodes of an assignment that passes to the choices of a better one that fails, as long as it still passes.

    The moves are ranked by gain over added noise; half of them are tried at once, fewer after a failure.

    Args:
        problem: the problem to solve.
        reached: an assignment that passes.
        better: a better assignment that fails.
        attempt: builds and judges an assignment.
        goal: the largest strain that passes.
        value: the objective to minimize: predicted time, or size.
        most: most assignments to try.

    Returns:
        Assignments that pass, each better than the one before; none if all moves together gain next to nothing.
    """
    accepted: list[Picks] = []
    refused: set[int] = set()
    share = 0.5
    for _ in range(most):
        moves = [
            (gain, noise, node)
            for node, (own, other) in enumerate(zip(reached, better, strict=True))
            if own != other and node not in refused
            for gain, noise in [_effect(problem, reached, node, other, value)]
            if gain > 0
        ]
        if sum(gain for gain, _, _ in moves) <= NEAR * value(point(problem, reached)):
            return accepted
        moves.sort(key=lambda move: (move[1] / move[0], move[2]))
        chosen = [node for _, _, node in moves[: max(1, round(len(moves) * share))]]
        candidate = tuple(better[node] if node in chosen else own for node, own in enumerate(reached))
        tried = attempt(candidate)
        if tried is None:
            return accepted
        if tried.strain <= goal:
            reached = candidate
            accepted.append(candidate)
        elif len(chosen) == 1:
            refused.add(chosen[0])
        else:
            share /= 2
    return accepted


def exchanges(problem: Problem, prices: Prices, best: Picks, goal: float) -> list[Picks]:
    """Assignments that may be better than the best known one, within the error of predictions.

    If two choices take about the same time, timing noise decides which is predicted to be faster, and so which was
    built. Here the other one gets its trial: nodes of equal size with the same choice change it together.

    Args:
        problem: the problem to solve.
        prices: the prices of time and size.
        best: the best assignment that passes.
        goal: the largest strain that passes.

    Returns:
        At most `EXCHANGES` assignments, the most promising first.
    """
    alike: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for node, (options, number) in enumerate(zip(problem.options, best, strict=True)):
        alike.setdefault((options[number].choice, tuple(option.size for option in options)), []).append(node)
    value = prices.value(point(problem, best))
    promising: dict[Picks, float] = {}
    for (choice, _), nodes in alike.items():
        for other in (option.choice for option in problem.options[nodes[0]] if kernel(option.choice) != kernel(choice)):
            uniform = problem.uniform(other)
            assignment = tuple(uniform[node] if node in nodes else own for node, own in enumerate(best))
            kernels = sum(problem.options[node][best[node]].us for node in nodes)
            changed = point(problem, assignment)
            gain = value - prices.value(changed) + prices.us * (DOUBT * kernels + LEVEL_US * len(nodes))
            if gain > NEAR * value and changed.noise <= DOUBT_OF_NOISE * goal**2:
                promising[assignment] = gain
    return sorted(promising, key=lambda assignment: (-promising[assignment], assignment))[:EXCHANGES]


def _effect(
    problem: Problem, assignment: Picks, node: int, option: int, value: Callable[[Point], float]
) -> tuple[float, float]:
    """The gain of a move, and the noise that it adds."""
    moved = (*assignment[:node], option, *assignment[node + 1 :])
    before, after = point(problem, assignment), point(problem, moved)
    return value(before) - value(after), max(0.0, after.noise - before.noise)
