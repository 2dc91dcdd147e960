"""Quantize as many nodes as pass the check; those that break the model stay float."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir
from tqdm import tqdm

from stages.common import isa
from stages.quantize.check import Finding
from stages.quantize.methods import Assignment
from stages.quantize.ordering import swaps
from stages.quantize.outcome import NodeOutcome, kept

TRIALS = 48
"""Most models to build and run: finding one bad node among a thousand takes twenty."""

SEARCH = 6
"""How many of these may search for the largest model that passes, once groups are ranked: enough for 63 groups."""

SHOWN = 5
"""Most names of nodes in a note."""

Make = Callable[[Sequence[Assignment]], tuple[ir.Model, dict[str, NodeOutcome]]]
"""Quantizes the given nodes; returns the model and the outcomes by node name."""

Examine = Callable[[ir.Model], Finding]
"""Whether a quantized model may be published."""


def most_that_passes(
    make: Make, nodes: Sequence[Assignment], examine: Examine
) -> tuple[ir.Model | None, dict[str, NodeOutcome]]:
    """Quantize `nodes`, except those that break the model.

    Nodes with which the model does not run, or gives NaN, are found by bisection. If its answers are merely too far
    off, the errors of many nodes add up: each is then measured alone, and those that move the answers most stay float.

    Returns:
        The model, or None if nothing was quantized; and the outcomes of `nodes` by name.
    """
    trials = _Trials(make, examine)
    with tqdm(desc="quantize: looking for nodes that break the model", unit=" models", delay=5, disable=None) as bar:
        trials.tried = bar.update
        good = _without_culprits(trials, list(nodes))
        if trials.problem:
            _without_the_worst(trials, good)
    return trials.model, trials.outcomes | trials.refused | trials.kept


def portable_note(
    make: Make, nodes: Sequence[Assignment], examine: Examine, outcomes: Mapping[str, NodeOutcome]
) -> list[str]:
    """A note on nodes that stay float only because INT8 saturates on this CPU; portable weights are tried first."""
    if isa.here() not in isa.SATURATING or all(node.params.portable or outcomes[node.name].quantized for node in nodes):
        return []
    model, spared = make([replace(node, params=node.params.model_copy(update={"portable": True})) for node in nodes])
    names = [node.name for node in nodes if spared[node.name].quantized and not outcomes[node.name].quantized]
    if not names or examine(model).problem:
        return []
    return [
        f"Sums of INT8 weights saturate on this CPU ({isa.here()}). With quantize.portable: true they do not, and "
        f"{len(names)} more node{'s' * (len(names) > 1)} could be quantized in a trial: {', '.join(names[:SHOWN])}"
        f"{', ...' if len(names) > SHOWN else ''}."
    ]


def order_note(model: ir.Model, outcomes: Mapping[str, NodeOutcome]) -> list[str]:
    """A note if nodes stay float because they break a model that picks and orders values: rows may just be swapped."""
    broke = any(outcome.breaks for outcome in outcomes.values())
    return [sentence] if broke and (sentence := swaps(model)) else []


@dataclass
class _Trials:
    """What was built so far.

    Attributes:
        left: models that may still be built.
        model: the largest model that may be published; while `problem` is not empty, None.
        outcomes: the outcomes of its nodes.
        kept: the outcomes of the nodes that the method itself keeps float.
        refused: the outcomes of the nodes that stay float because they break the model.
        problem: what is wrong with the answers of the largest model that runs; empty if they are close enough.
    """

    make: Make
    examine: Examine
    left: int = TRIALS
    model: ir.Model | None = None
    outcomes: dict[str, NodeOutcome] = field(default_factory=dict)
    kept: dict[str, NodeOutcome] = field(default_factory=dict)
    refused: dict[str, NodeOutcome] = field(default_factory=dict)
    problem: str = ""
    tried: Callable[[], object] = lambda: None

    def attempt(self, nodes: Sequence[Assignment], added: Sequence[Assignment]) -> Finding:
        """Quantize `nodes`, of which `added` are new, and keep the model if it may be published."""
        self.left -= 1
        self.tried()
        candidate, outcomes = self.make(nodes)
        self.kept |= {node.name: outcomes[node.name] for node in added if not outcomes[node.name].quantized}
        if all(node.name in self.kept for node in added):
            return Finding()
        finding = self.examine(candidate)
        if finding.cosine is not None:
            self.problem, self.outcomes = finding.problem, outcomes
            self.model = None if finding.problem else candidate
        return finding


def _without_culprits(trials: _Trials, nodes: list[Assignment]) -> list[Assignment]:
    """The nodes that give a model that runs. Groups that fail are halved until single nodes are left."""
    good: list[Assignment] = []
    groups = [nodes] if nodes else []
    while groups and trials.left:
        group = groups.pop(0)
        finding = trials.attempt([*good, *group], group)
        if finding.cosine is not None:
            good += group
        elif len(group) == 1:
            trials.refused[group[0].name] = kept(f"quantizing it breaks the model: {finding.problem}", breaks=True)
        else:
            groups[:0] = [group[: len(group) // 2], group[len(group) // 2 :]]
    reason = f"quantizing it with others breaks the model; {TRIALS} trials did not find the node at fault"
    unknown = kept(reason, breaks=True)
    trials.refused |= {node.name: unknown for group in groups for node in group}
    return good


def _without_the_worst(trials: _Trials, nodes: list[Assignment]) -> None:
    """Keep those nodes float that move the answers most, as few as it takes."""
    together = trials.problem
    ranked = _ranked(trials, nodes)
    trials.model, trials.outcomes, trials.problem = None, {}, ""
    fewest, most = 1, len(ranked)  # to keep float; with `most` the model passes
    passing: tuple[ir.Model | None, dict[str, NodeOutcome]] = None, {}
    while fewest < most:
        middle = (fewest + most) // 2
        rest = {node.name for group, _ in ranked[middle:] for node in group}
        wanted = [node for node in nodes if node.name in rest]
        trials.attempt(wanted, wanted)
        if trials.model is None:
            fewest = middle + 1
        else:
            most, passing = middle, (trials.model, trials.outcomes)
    trials.model, trials.outcomes = passing
    for group, alone in ranked[:most]:
        reason = f"together the nodes break the model ({together}), and this is one of those that move its answers most"
        if len(group) == 1 and alone.problem:
            reason = f"quantizing it breaks the model: {alone.problem}"
        trials.refused |= {node.name: kept(reason, breaks=True) for node in group}


def _ranked(trials: _Trials, nodes: list[Assignment]) -> list[tuple[list[Assignment], Finding]]:
    """Groups of nodes (single nodes if there are few), and how far each alone moves the answers, the worst first."""

    def measured(group: list[Assignment]) -> tuple[list[Assignment], Finding]:
        return group, trials.attempt(group, group)

    def cosine(entry: tuple[list[Assignment], Finding]) -> float:
        return -1.0 if entry[1].cosine is None else entry[1].cosine

    spare = trials.left - SEARCH
    size = 1 if len(nodes) <= spare else math.ceil(2 * len(nodes) / max(2, spare))
    groups = [measured(nodes[start : start + size]) for start in range(0, len(nodes), size)]
    while trials.left > SEARCH + 1 and (large := [entry for entry in groups if len(entry[0]) > 1]):
        worst = min(large, key=cosine)
        groups.remove(worst)
        half = len(worst[0]) // 2
        groups += [measured(worst[0][:half]), measured(worst[0][half:])]
    return sorted(groups, key=cosine)
