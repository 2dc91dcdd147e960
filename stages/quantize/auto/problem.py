"""Predicted time, size and error of an assignment: sums over nodes and over the tensors between them. Pure.

A node costs the time of its kernel. The activation that a kernel reads and its output have a form (float, the blocked
layout of float convolutions, 8 bits). If forms differ, the tensor between the nodes is converted, once per form,
however many nodes read it. The noise powers of nodes nearly add up, as their errors are independent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

FLOAT = "float"
"""The form of plain float tensors, which all nodes without choices read and return."""


@dataclass(frozen=True)
class Option:
    """A choice at a node.

    Attributes:
        choice: name of the choice.
        us: time of the kernel in a call, in microseconds, without conversions.
        noise: the error that it adds, which sums over nodes: the squared share of a tolerance that it alone uses.
        size: bytes of its weights.
        takes: the form in which it reads its activation.
        gives: the form of its output.
    """

    choice: str
    us: float
    noise: float
    size: int
    takes: str = FLOAT
    gives: str = FLOAT


@dataclass(frozen=True)
class Junction:
    """A tensor between nodes with choices, or several tensors with operators between that keep any form.

    Attributes:
        producers: indices of the nodes that output it.
        consumers: indices of the nodes that read it.
        open: whether other nodes output or read it, which do so as floats.
        into: microseconds to convert floats into a form.
        back: microseconds to convert a form into floats.
    """

    producers: tuple[int, ...]
    consumers: tuple[int, ...]
    open: bool
    into: Mapping[str, float] = field(default_factory=dict)
    back: Mapping[str, float] = field(default_factory=dict)

    def us(self, gives: Sequence[str], takes: Sequence[str]) -> float:
        """Microseconds of its conversions, given the forms of its producers and consumers."""
        forms = {*gives, *takes}
        if not self.open and len(forms) == 1:
            return 0.0
        return sum(self.back.get(form, 0.0) for form in gives) + sum(self.into.get(form, 0.0) for form in set(takes))


Picks = tuple[int, ...]
"""An assignment: for each node the index of its option."""


@dataclass(frozen=True)
class Problem:
    """All nodes with choices, their options, and the tensors between them.

    Attributes:
        names: names of the nodes.
        options: the options of each node; the first one is float.
        junctions: the junctions between nodes.
        rest_us: the part of the time of a call that no choice changes.
        rest_bytes: the part of the file that no choice changes.
    """

    names: tuple[str, ...]
    options: tuple[tuple[Option, ...], ...]
    junctions: tuple[Junction, ...] = ()
    rest_us: float = 0.0
    rest_bytes: int = 0

    @cached_property
    def touching(self) -> tuple[tuple[int, ...], ...]:
        """The indices of each node's junctions."""
        touching: list[list[int]] = [[] for _ in self.names]
        for number, junction in enumerate(self.junctions):
            for node in {*junction.producers, *junction.consumers}:
                touching[node].append(number)
        return tuple(map(tuple, touching))

    @cached_property
    def known_borders(self) -> dict[tuple[int, ...], float]:
        """A cache of the cost of junctions, by index and by the options around them."""
        return {}

    def chosen(self, assignment: Picks) -> list[Option]:
        """The options that an assignment takes."""
        return [options[number] for options, number in zip(self.options, assignment, strict=True)]

    def us(self, assignment: Picks) -> float:
        """Predicted time of a call, in microseconds."""
        nodes = sum(option.us for option in self.chosen(assignment))
        borders = sum(self.border_us(number, assignment) for number in range(len(self.junctions)))
        return self.rest_us + nodes + borders

    def border_us(self, junction: int, assignment: Picks) -> float:
        """Microseconds of the conversions at a junction."""
        tensor = self.junctions[junction]
        gives = [self.options[node][assignment[node]].gives for node in tensor.producers]
        takes = [self.options[node][assignment[node]].takes for node in tensor.consumers]
        return tensor.us(gives, takes)

    def noise(self, assignment: Picks) -> float:
        """The sum of the noise powers."""
        return sum(option.noise for option in self.chosen(assignment))

    def size(self, assignment: Picks) -> int:
        """Bytes of the file."""
        return self.rest_bytes + sum(option.size for option in self.chosen(assignment))

    def named(self, assignment: Picks) -> dict[str, str]:
        """The choice of each node by name."""
        return {name: option.choice for name, option in zip(self.names, self.chosen(assignment), strict=True)}

    @property
    def all_float(self) -> Picks:
        """The assignment in which nothing is quantized."""
        return (0,) * len(self.names)

    def uniform(self, choice: str) -> Picks:
        """The assignment with one choice at all nodes that have it, and float at the others."""
        return tuple(
            next((number for number, option in enumerate(options) if option.choice == choice), 0)
            for options in self.options
        )


@dataclass(frozen=True)
class Prices:
    """What a microsecond, a byte and a unit of noise cost in the sum to minimize."""

    us: float
    size: float
    noise: float = 0.0

    def value(self, point: "Point") -> float:
        """The sum of what the point costs."""
        return self.us * point.us + self.size * point.size + self.noise * point.noise


@dataclass(frozen=True)
class Point:
    """An assignment with its predicted time, noise and size."""

    assignment: Picks
    us: float
    noise: float
    size: int


def point(problem: Problem, assignment: Picks) -> Point:
    """An assignment with its predicted time, noise and size."""
    return Point(assignment, problem.us(assignment), problem.noise(assignment), problem.size(assignment))
