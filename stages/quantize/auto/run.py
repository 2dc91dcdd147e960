"""Method auto and method plan, as the stage calls them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.data.evaldata import EvalData
from stages.common.graph.weights import WeightedNode
from stages.quantize import correction
from stages.quantize.auto import mix, plan
from stages.quantize.auto.base import Recipe
from stages.quantize.auto.choices import CHOICES, KEPT
from stages.quantize.auto.find import SearchResult, find
from stages.quantize.auto.judge import Judge, calibration_feeds
from stages.quantize.auto.probe import Sensitivity, by_power, probe_all, unknowns, unmeasured
from stages.quantize.correction import Correction
from stages.quantize.eight_bits import remembered
from stages.quantize.methods import Assignment
from stages.quantize.methods.static.ranges import Known
from stages.quantize.outcome import NodeOutcome

Result = tuple[ir.Model | None, dict[str, NodeOutcome], SearchResult | None]
"""The quantized model, None where float is the answer; what became of each node; and what was found by a search."""


def made(
    source: ir.Model,
    prepared: ir.Model,
    nodes: Sequence[WeightedNode],
    selected: Sequence[Assignment],
    *,
    data: EvalData | None,
    params: Params,
    fault: Callable[[ir.Model], str],
    name: str,
    recipe: Recipe,
) -> Result:
    """Search for a plan, or replay one.

    Args:
        source: the float model as it is published.
        prepared: what candidates are made from.
        nodes: every node with a weight of it.
        selected: those that may be quantized.
        data: the search split is used.
        params: of all stages.
        fault: why a model must not be published.
        name: what to call the float model in an error.
        recipe: how `prepared` was made.

    Raises:
        StageError: there are no evaluation data, nothing passes, or the plan does not fit.
    """
    data = _needed(data)
    judge = Judge(source, data, params, name)
    calibration = params.quantize.calibration
    feeds = partial(calibration_feeds, data, judge.calibration_batch, calibration.samples)
    if params.quantize.method == "auto":
        known = Known(feeds, calibration.method)
        make = _Make(prepared, selected, known)
        with remembered():
            search = find(prepared, selected, judge, params, make=make, fault=fault, recipe=recipe)
        corrections = make.corrections.get(_key(search.trial.candidate.choices), {}) if search.trial else {}
        chosen = search.trial.candidate.choices if search.trial else {}
        smoothing = {
            key: powers
            for key, powers in known.smoothing.items()
            if all((choice := chosen.get(name, KEPT)) != KEPT and CHOICES[choice].smoothed for name in key[1:])
        }
        search = replace(search, ranges=known.collected, corrections=corrections, smoothing=smoothing)
        return search.model, search.outcomes, search
    planned = plan.read(Path(params.quantize.plan or ""))
    planned.check(nodes)
    known = Known(feeds, calibration.method, planned.ranges, planned.smoothing)
    model, outcomes = mix.mixed(prepared, selected, planned.choices, known)
    correction.apply(model, planned.corrections)
    if problem := fault(model):
        raise StageError(f"The model of {planned.place} cannot be published: {problem}. Run method auto again.")
    quantized = any(outcome.quantized for outcome in outcomes.values())
    return model if quantized else None, outcomes, None


class _Make:
    """Makes candidates, their static nodes corrected, and remembers the corrections of each."""

    def __init__(self, prepared: ir.Model, selected: Sequence[Assignment], known: Known) -> None:
        self._prepared, self._selected, self._known = prepared, selected, known
        self.corrections: dict[frozenset[tuple[str, str]], Mapping[str, Correction]] = {}

    def __call__(self, choices: Mapping[str, str]) -> tuple[ir.Model, dict[str, NodeOutcome]]:
        model, outcomes = mix.mixed(self._prepared, self._selected, choices, self._known)
        model, self.corrections[_key(choices)] = correction.corrected(model, self._prepared, self._known())
        return model, outcomes


def _key(choices: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(choices.items())


def ranked(
    source: ir.Model,
    prepared: ir.Model,
    selected: Sequence[Assignment],
    *,
    data: EvalData | None,
    params: Params,
    name: str,
) -> list[Sensitivity]:
    """The error that each choice adds at each node, the most sensitive first, what is unknown before all.

    Raises:
        StageError: there are no evaluation data, or the model does not run.
    """
    judge = Judge(source, _needed(data), params, name)
    probed = probe_all(prepared, selected, judge.probe_feeds(), params.parity)
    unknown = unmeasured((assignment.node for assignment in selected), probed)
    known = [sensitivity for node in probed.values() for sensitivity in node.sensitivities]
    return by_power([*known, *unknowns((assignment.node for assignment in selected), unknown)])


def _needed(data: EvalData | None) -> EvalData:
    if data is None:
        raise StageError(
            f"The error of a choice is measured on samples, and {paths.EVAL.as_posix()} is missing. Run export first."
        )
    return data
