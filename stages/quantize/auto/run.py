"""Quantize by method auto or plan."""

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
from stages.quantize.eight_bits import cached
from stages.quantize.methods import Assignment
from stages.quantize.methods.static.ranges import Known, Range
from stages.quantize.outcome import NodeOutcome

Result = tuple[ir.Model | None, dict[str, NodeOutcome], SearchResult | None]
"""The quantized model, None if fp32 is better; the outcomes by node name; the result of the search, None for plan."""


def quantize(
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
        source: the fp32 model as published.
        prepared: the float model that candidates are built from.
        nodes: all nodes of `prepared` with a weight.
        selected: the nodes that may be quantized.
        data: evaluation data; only the search split is used.
        params: all params.
        fault: returns why a model must not be published, empty if it may.
        name: what to call the fp32 model in errors.
        recipe: how `prepared` was prepared.

    Raises:
        StageError: the evaluation data is missing, no model passes, or the plan does not fit the model.
    """
    data = _required(data)
    judge = Judge(source, data, params, name)
    if params.quantize.method == "auto":
        known = _known(judge, data, params)
        make = _Make(prepared, selected, known)
        with cached():
            search = find(prepared, selected, judge, params, make=make, fault=fault, recipe=recipe, calibration=known)
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
    known = _known(judge, data, params, planned.ranges, planned.smoothing)
    model, outcomes = mix.mixed(prepared, selected, planned.choices, known)
    correction.apply(model, planned.corrections)
    if problem := fault(model):
        raise StageError(f"The model of {planned.place} cannot be published: {problem}. Run method auto again.")
    quantized = any(outcome.quantized for outcome in outcomes.values())
    return model if quantized else None, outcomes, None


class _Make:
    """Builds candidates and corrects their static nodes; keeps the corrections of each candidate."""

    def __init__(self, prepared: ir.Model, selected: Sequence[Assignment], known: Known) -> None:
        self._prepared, self._selected, self._known = prepared, selected, known
        self.corrections: dict[frozenset[tuple[str, str]], Mapping[str, Correction]] = {}

    def __call__(self, choices: Mapping[str, str]) -> tuple[ir.Model, dict[str, NodeOutcome]]:
        model, outcomes = mix.mixed(self._prepared, self._selected, choices, self._known)
        model, self.corrections[_key(choices)] = correction.corrected(model, self._prepared, self._known())
        return model, outcomes


def _key(choices: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(choices.items())


def sensitivities(
    source: ir.Model,
    prepared: ir.Model,
    selected: Sequence[Assignment],
    *,
    data: EvalData | None,
    params: Params,
    name: str,
) -> list[Sensitivity]:
    """The error that each choice adds at each node: unknown ones first, then the most sensitive.

    Raises:
        StageError: the evaluation data is missing, or the model does not run.
    """
    data = _required(data)
    judge = Judge(source, data, params, name)
    probed = probe_all(prepared, selected, judge.probe_feeds(), params.parity, _known(judge, data, params))
    unknown = unmeasured((assignment.node for assignment in selected), probed)
    measured = [sensitivity for node in probed.values() for sensitivity in node.sensitivities]
    return by_power([*measured, *unknowns((assignment.node for assignment in selected), unknown)])


def _known(
    judge: Judge,
    data: EvalData,
    params: Params,
    collected: Mapping[str, Range] | None = None,
    smoothing: Mapping[tuple[str, ...], Sequence[int]] | None = None,
) -> Known:
    """The calibration samples, with the ranges and smoothing that are known already."""
    calibration = params.quantize.calibration
    feeds = partial(calibration_feeds, data, judge.calibration_batch, calibration.samples)
    return Known(feeds, calibration.method, collected, smoothing)


def _required(data: EvalData | None) -> EvalData:
    if data is None:
        raise StageError(
            f"Method auto measures errors on samples, but {paths.EVAL.as_posix()} is missing. Run export first."
        )
    return data
