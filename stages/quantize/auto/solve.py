"""The best assignment at given prices of time, size and noise. Pure."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

from stages.quantize.auto.problem import FLOAT, Option, Picks, Prices, Problem

EXHAUSTIVE = 4096
"""Groups of nodes with at most this many assignments are solved exhaustively."""


def best(problem: Problem, prices: Prices, near: Picks | None = None) -> Picks:
    """The assignment with the least weighted sum of time, size and noise.

    Args:
        problem: the problem to solve.
        prices: the prices in the sum.
        near: the best assignment at similar prices; if given, the descent starts only there.

    Nodes without a common junction do not depend on each other, so each group of connected nodes is solved alone:
    exhaustively if it is small, else by descent from several starts. The descent moves single nodes, all nodes around a
    tensor, and runs of neighbours: one INT8 node among float nodes pays two conversions, and a run of them no more.
    """
    assignment = list(problem.all_float)
    for group in _groups(problem):
        decided = _exhaustive(problem, group, prices) or _descent(problem, group, prices, near)
        for node, number in zip(group, decided, strict=True):
            assignment[node] = number
    return tuple(assignment)


def _groups(problem: Problem) -> list[list[int]]:
    """Nodes that depend on each other through junctions, in the order of their first node."""
    leader = list(range(len(problem.names)))

    def find(node: int) -> int:
        while leader[node] != node:
            node = leader[node]
        return node

    for junction in problem.junctions:
        first, *others = (*junction.producers, *junction.consumers)
        for node in others:
            low, high = sorted((find(first), find(node)))
            leader[high] = low
    groups: dict[int, list[int]] = {}
    for node in range(len(problem.names)):
        groups.setdefault(find(node), []).append(node)
    return list(groups.values())


class Group:
    """The weighted sum over a group of nodes and the junctions between them."""

    def __init__(self, problem: Problem, nodes: Sequence[int], prices: Prices) -> None:
        self.problem = problem
        self.nodes = nodes
        self.prices = prices
        self.place = {node: place for place, node in enumerate(nodes)}
        self.junctions = sorted({junction for node in nodes for junction in problem.touching[node]})
        self.costs = [
            [prices.us * o.us + prices.size * o.size + prices.noise * o.noise for o in problem.options[node]]
            for node in nodes
        ]

    def border(self, junction: int, numbers: Sequence[int]) -> float:
        """The weighted cost of a junction."""
        tensor, options, known = self.problem.junctions[junction], self.problem.options, self.problem.known_borders
        producers = [numbers[self.place[node]] for node in tensor.producers]
        consumers = [numbers[self.place[node]] for node in tensor.consumers]
        key = (junction, *producers, *consumers)
        if key not in known:
            gives = [options[node][number].gives for node, number in zip(tensor.producers, producers, strict=True)]
            takes = [options[node][number].takes for node, number in zip(tensor.consumers, consumers, strict=True)]
            known[key] = tensor.us(gives, takes)
        return self.prices.us * known[key]

    def value(self, numbers: Sequence[int]) -> float:
        """The sum of what the point costs."""
        nodes = sum(costs[number] for costs, number in zip(self.costs, numbers, strict=True))
        return nodes + sum(self.border(junction, numbers) for junction in self.junctions)

    def change(self, numbers: list[int], moves: Sequence[tuple[int, int]]) -> float:
        """The change of the sum if nodes (by place in the group) take other options."""
        touched = {junction for place, _ in moves for junction in self.problem.touching[self.nodes[place]]}
        before = sum(self.border(junction, numbers) for junction in touched)
        after = numbers.copy()
        change = 0.0
        for place, number in moves:
            change += self.costs[place][number] - self.costs[place][after[place]]
            after[place] = number
        return change + sum(self.border(junction, after) for junction in touched) - before


def _exhaustive(problem: Problem, nodes: Sequence[int], prices: Prices) -> Sequence[int] | None:
    """The best of all assignments; None if there are too many. Of options with equal forms only the best counts."""
    group = Group(problem, nodes, prices)
    useful = []
    for node, costs in zip(nodes, group.costs, strict=True):
        least: dict[tuple[str, str], int] = {}
        for number, option in enumerate(problem.options[node]):
            forms = option.takes, option.gives
            least[forms] = min(least.get(forms, number), number, key=costs.__getitem__)
        useful.append(list(least.values()))
    return min(product(*useful), key=group.value) if math.prod(map(len, useful)) <= EXHAUSTIVE else None


def _descent(problem: Problem, nodes: Sequence[int], prices: Prices, near: Picks | None) -> Sequence[int]:
    """The best assignment that descending from each start, or only from `near`, reaches."""
    group = Group(problem, nodes, prices)
    moves = list(blocks(group))
    starts = _starts(group) if near is None else iter([[near[node] for node in nodes]])
    reached = [_descend(group, start, moves) for start in starts]
    return min(reached, key=group.value)


def _descend(group: Group, numbers: list[int], blocks: Sequence[Sequence[tuple[int, int]]]) -> list[int]:
    """Make every move that gains, until none does."""
    gained = True
    while gained:
        gained = False
        for moves in blocks:
            useful = [(place, number) for place, number in moves if numbers[place] != number]
            if useful and group.change(numbers, useful) < -1e-12:
                for place, number in useful:
                    numbers[place] = number
                gained = True
    return numbers


def _starts(group: Group) -> Iterator[list[int]]:
    """Starts of the descent: all float, the cheapest option of each node, and each choice everywhere."""
    options = [group.problem.options[node] for node in group.nodes]
    yield [0] * len(group.nodes)
    yield [costs.index(min(costs)) for costs in group.costs]
    for choice in sorted({option.choice for node in options for option in node}):
        yield [_number(node, choice) for node in options]


def blocks(group: Group) -> Iterator[list[tuple[int, int]]]:
    """Moves of single nodes, of all nodes around a junction, and of runs of consecutive nodes."""
    options = [group.problem.options[node] for node in group.nodes]
    count = len(options)
    for place, node in enumerate(options):
        yield from ([(place, number)] for number in range(len(node)))
    sets: list[Sequence[int]] = []
    for junction in group.junctions:
        tensor = group.problem.junctions[junction]
        sets.append(sorted({group.place[node] for node in (*tensor.producers, *tensor.consumers)}))
    resident = sorted({option.choice for node in options for option in node if option.gives != FLOAT} | {FLOAT})
    if len(resident) > 1:  # for the other choices, conversions do not depend on their neighbours
        sets += [range(first, first + run) for run in (2, 3, 4, 6, 8, 12, 16) for first in range(count - run + 1)]
        sets += [range(cut) for cut in range(1, count + 1)] + [range(cut, count) for cut in range(1, count)]
    choices = sorted({option.choice for node in options for option in node})
    for places in sets:
        wanted = choices if len(places) == 2 else resident
        yield from ([(place, _number(options[place], choice)) for place in places] for choice in wanted)


def _number(options: Sequence[Option], choice: str) -> int:
    """The index of the option with this choice, 0 (float) if there is none."""
    return next((number for number, option in enumerate(options) if option.choice == choice), 0)
