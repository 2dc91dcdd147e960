"""Build candidates as real models, and judge them by parity's rules, on the search split only."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.compare.comparison import MismatchError, compare
from stages.common.data.evaldata import Batch, EvalData
from stages.common.data.feeding import feed_batch, fixed_batch
from stages.common.decisions import Decider, Outputs, choose
from stages.common.judging.rules import evaluate_rules, largest_strain
from stages.common.judging.serve import Model, Values, calls, logarithms, paired
from stages.common.model import model_file, sessions
from stages.common.model.sessions import Feed
from stages.common.rule import Rule
from stages.quantize.auto.choices import CHOICES, KEPT
from stages.quantize.auto.problem import Picks
from stages.quantize.auto.strain import at_sample_count
from stages.quantize.auto.tails import Tails
from stages.quantize.auto.timing import Call, call
from stages.quantize.outcome import NodeOutcome

SHUFFLES = 3
"""How often the samples are served in batches, each time reshuffled, as parity judges three times as many batches."""

FEW = 2
"""With fewer search samples, all of them calibrate."""

MOVED = 64
"""Most samples to measure the batch effect on, if parity.max_batch_effect is set."""

CACHE_BYTES = 64 << 20
"""Most bytes of the float model's answers to cache, so that it does not run again for each candidate."""

PROBE_FEEDS = 8
"""Number of feeds that single nodes are measured on."""


@dataclass(frozen=True)
class Candidate:
    """A model that was built and judged.

    Attributes:
        assignment: the assignment that it was built from.
        choices: the choices of the assignment by node name.
        model: the model; None if it does not run.
        outcomes: the outcomes by node name.
        rules: parity's rules, evaluated on the search split.
        strain: the largest share of a tolerance that a rule uses; infinite for a broken model.
        size: size of the file in bytes.
        fault: why it is broken; empty if it is not.
    """

    assignment: Picks
    choices: Mapping[str, str]
    model: ir.Model | None
    outcomes: Mapping[str, NodeOutcome]
    rules: tuple[Rule, ...]
    strain: float
    size: int
    fault: str = ""

    def passes(self, margin: float) -> bool:
        """Whether every rule passes with at least this share of its tolerance to spare."""
        return self.strain <= 1 - margin


@dataclass(frozen=True)
class _Cached(Model):
    """A model that caches its answers, up to `CACHE_BYTES`."""

    cache: dict[bytes, Values] = field(default_factory=dict)

    def values(self, call: Batch) -> Values:
        """See `Model`."""
        key = call.indices.tobytes()
        if key in self.cache:
            return self.cache[key]
        values = super().values(call)
        if sum(map(_size, [values, *self.cache.values()])) <= CACHE_BYTES:
            self.cache[key] = values
        return values


def _size(values: Values) -> float:
    """Bytes of the answers to a call; infinite for lists of maps and the like, so that they are not cached."""
    return sum(value.nbytes if isinstance(value, np.ndarray) else math.inf for value in values)


class Judge:
    """Runs candidates and the float model at the serving batch size, and compares their answers."""

    def __init__(self, source: ir.Model, data: EvalData, params: Params, name: str) -> None:
        self._params = params
        self._data = data
        self._float = _Cached(sessions.open_session(source, params.serving.threads, name=name), name)
        self.float_bytes = model_file.stored_bytes(source)
        self._source = source
        self.batch = feed_batch(self._float.session, data.layout, params.serving.batch_size)
        self.calibration_batch = feed_batch(self._float.session, data.layout, wanted=1)
        search = data.indices("search")
        self._indices = search if len(search) else data.indices("judge")
        self._float = replace(self._float, logarithms=logarithms(self._float, calls(data, self._indices, self.batch)))
        self._judged = max(len(data.indices("judge")), len(self._indices))

    def feeds(self) -> Iterator[Feed]:
        """Feeds of the serving batch size over the search split."""
        for served in calls(self._data, self._indices, self.batch):
            yield served.feed

    def probe_feeds(self) -> list[Feed]:
        """The feeds that single nodes are measured on."""
        return list(islice(self.feeds(), PROBE_FEEDS))

    def rules(self, model: ir.Model, *, clips: bool) -> list[Rule]:
        """Parity's rules, evaluated on a candidate.

        Args:
            model: the candidate.
            clips: whether it has static ranges, which clip.

        Raises:
            StageError: the candidate does not load or run, or its outputs do not match those of the float model.
        """
        served = Model(self.session(model), "a candidate", self._float.logarithms)
        parity = self._params.parity

        def decider(outputs: Outputs, labels: np.ndarray | None) -> Decider:
            return choose(outputs, labels, threshold=parity.threshold, classifier=parity.max_flip_rate is not None)

        stream = calls(self._data, self._served(), self.batch)
        tails = Tails(clips=clips)
        try:
            comparison = compare(tails.watch(paired(self._float, served, stream)), self._data.labels, decider)
        except MismatchError as error:
            raise StageError(f"The candidate's outputs do not match those of the float model: {error}.") from error
        tree = comparison.figures()
        tree["judged"]["samples"] = comparison.samples
        for output, factor in tails.factors().items():
            tree["outputs"][output]["max_abs"] *= factor
        if parity.max_batch_effect is not None:
            tree["batch_effect"] = self._batch_effect(served)
        return evaluate_rules(at_sample_count(tree, self._judged), parity)

    def _batch_effect(self, served: Model) -> dict[str, Any]:
        """How far answers move between batches of 1 and larger ones; padding is left to parity."""
        indices = self._indices[:MOVED]
        nothing = {"max_abs": None, "padding": {"int8_max_abs": None}, "reason": "one batch size only"}
        if self._data.layout == "feeds" or fixed_batch(self._float.session, self._data.layout) is not None:
            return nothing
        alone = [served.answer(call) for call in calls(self._data, indices, 1)]
        largest = 0.0
        for size in {self.batch, max(self.batch, len(indices))}:
            together = [served.answer(call) for call in calls(self._data, indices, size)]
            for name, array in alone[0].items():
                if array.dtype.kind == "f":
                    one, other = (np.concatenate([answer[name] for answer in side]) for side in (alone, together))
                    if one.shape == other.shape:
                        largest = max(largest, float(np.abs(one.astype(np.float64) - other).max(initial=0.0)))
        return {**nothing, "max_abs": largest, "reason": ""}

    def session(self, model: ir.Model) -> ort.InferenceSession:
        """A session of a candidate, with the settings of production."""
        return sessions.open_session(model, self._params.serving.threads, name="a candidate")

    def call(self, model: ir.Model) -> Call:
        """A call with the first feed, in a new session."""
        return call(self.session(model), next(self.feeds()))

    def float_call(self) -> Call:
        """A call of the float model with the first feed."""
        return self.call(self._source)

    def _served(self) -> np.ndarray:
        """The search samples; for batches repeated, each time in another order."""
        if self._data.layout == "feeds" or self.batch == 1:
            return self._indices
        random = np.random.default_rng(0)
        return np.concatenate([self._indices, *(random.permutation(self._indices) for _ in range(SHUFFLES - 1))])


def calibration_feeds(data: EvalData, batch: int, samples: int) -> Iterator[Feed]:
    """Feeds over every other sample of the search split, at most `samples`; over all samples if there are few.

    The other half shows the effect of clipping on values that calibration has not seen.
    """
    indices = data.indices("search")
    indices = indices if len(indices) else data.indices("judge")
    if len(indices) >= FEW:
        indices = indices[::2]
    for served in calls(data, indices[: max(batch, samples)], batch):
        yield served.feed


Make = Callable[[Mapping[str, str]], tuple[ir.Model, dict[str, NodeOutcome]]]
"""Builds the model with these choices by node name; returns it with the outcomes by node name."""


def judged(
    assignment: Picks, choices: Mapping[str, str], make: Make, fault: Callable[[ir.Model], str], judge: Judge
) -> Candidate:
    """Build a candidate and judge it."""
    model, outcomes = make(choices)
    size, problem, runs = model_file.stored_bytes(model), fault(model), True
    rules: tuple[Rule, ...] = ()
    try:
        clips = any(CHOICES[choice].method == "static" for choice in choices.values() if choice != KEPT)
        rules = tuple(judge.rules(model, clips=clips))
    except StageError as error:
        problem, runs = problem or str(error), False
    if problem:
        return Candidate(assignment, choices, model if runs else None, outcomes, (), math.inf, size, problem)
    return Candidate(assignment, choices, model, outcomes, rules, largest_strain(rules), size)


def model_bytes(model: ir.Model) -> int:
    """Bytes of all weights of a model, plus an estimate for its nodes, which counts their names twice."""
    weights: int = sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    nodes: int = sum(60 + 2 * len(node.name or "") for node in model.graph.all_nodes())
    return weights + nodes
