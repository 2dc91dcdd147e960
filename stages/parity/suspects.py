"""Which quantized nodes are at fault, and would keeping them float repair it? Answered by trying it.

Every quantized node is first run alone, on the activations of fp32: the error that it adds by itself. The noisiest are
then put back to float in the INT8 model, one at a time and together, and the result is judged by the same rules.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto

from stages.common import model_file, paths
from stages.common.compare import Comparison, Decider
from stages.common.compare.signal import SignalNoise
from stages.common.errors import StageError
from stages.common.evaldata import Batch
from stages.common.params import Parity
from stages.common.sessions import open_session
from stages.parity import segments
from stages.parity.segments import Segment
from stages.parity.serve import Model
from stages.parity.setting import Setting
from stages.parity.verdict import judge

TRIED = 8
"""How many of the noisiest nodes are put back to float, one at a time and together."""

LARGEST_MODEL = 1_000_000_000
"""Weights in bytes beyond which no variant is made: it would have to fit into one protobuf message of 2 GiB."""


@dataclass(frozen=True)
class Suspect:
    """A quantized piece of the graph.

    Attributes:
        nodes: the names to give to `quantize.exclude_nodes`.
        op_type: of the first of them.
        outputs: the tensors that it makes.
        sqnr_db: signal to noise of the worst of them, run in INT8 on the activations of fp32.
        left: the largest absolute error of the model's outputs with this piece alone kept float; None if not tried.
    """

    nodes: tuple[str, ...]
    op_type: str
    outputs: tuple[str, ...]
    sqnr_db: float
    left: float | None = None


@dataclass(frozen=True)
class Repair:
    """Nodes whose exclusion was tried, the largest error that it leaves, and whether the rules then hold."""

    nodes: tuple[str, ...]
    max_abs: float
    passed: bool


@dataclass(frozen=True)
class Diagnosis:
    """The quantized pieces from the worst on, and the smallest repair that was found; else the reason why not."""

    suspects: list[Suspect] = field(default_factory=list)
    repair: Repair | None = None
    samples: int = 0
    reason: str = ""


def diagnose(
    setting: Setting, batches: Sequence[Batch], decider: Decider, params: Parity, tick: Callable[[], object]
) -> Diagnosis:
    """Find the nodes at fault on some of the samples.

    Args:
        setting: the models as they were judged.
        batches: the samples to try, in the batches in which they missed.
        decider: as in the judgement.
        params: the rules to meet.
        tick: is called for each variant of the model that was tried.
    """
    models = (model_file.read(paths.FP32_MODEL, "export"), model_file.read(paths.INT8_MODEL, "quantize"))
    if sum(map(model_file.weight_bytes, models)) > LARGEST_MODEL:
        return Diagnosis(reason="the models are too large to try variants of them")
    try:
        return _Trials(*models, setting, batches, decider, params, tick).run()
    except StageError as error:
        return Diagnosis(reason=f"the pieces of the graph cannot be run alone: {error}")


def excludable() -> dict[str, str] | None:
    """The quantized nodes that `metrics/nodes.csv` lists, name to op type; None where quantize left no such file."""
    if not paths.NODES.exists():
        return None
    with paths.NODES.open(newline="", encoding="utf-8") as file:
        return {row["node"]: row["op_type"] for row in csv.DictReader(file) if row["quantized"] == "true"}


def named(known: Mapping[str, str] | None, made: Iterable[str]) -> dict[str, str]:
    """Which known nodes became these nodes of the INT8 graph; quantize calls them `<node>` or `<node>_<more>`."""
    found = {}
    for name in made:
        stems = [name, *(name[:place] for place in range(len(name) - 1, 0, -1) if name[place] == "_")]
        stem = next((each for each in stems if each in (known or {})), None)
        if stem is not None and known is not None:
            found[stem] = known[stem]
    return found


@dataclass(frozen=True)
class _Trials:
    fp32: ModelProto
    int8: ModelProto
    setting: Setting
    batches: Sequence[Batch]
    decider: Decider
    params: Parity
    tick: Callable[[], object]

    def run(self) -> Diagnosis:
        shared = segments.shared_tensors(self.fp32.graph, self.int8.graph)
        quantized = {
            name: piece
            for name, piece in segments.segments(self.int8.graph, shared).items()
            if any(segments.is_quantized(self.int8.graph.node[place]) for place in piece.nodes)
        }
        floats = segments.segments(self.fp32.graph, shared)
        pieces = [piece for name, piece in quantized.items() if name in floats]
        if not pieces:
            return Diagnosis(reason="the two graphs share no tensor around a quantized node")
        suspects = self._suspects(quantized, floats, self._noise(pieces))
        if not suspects:
            return Diagnosis(reason="none of the quantized nodes has a name, so that none can be excluded")
        answers = [self.setting.fp32.answer(batch) for batch in self.batches]
        # With the last quantized node float nothing would be quantized.
        tried = [self._alone(each, floats, answers) for each in suspects[:TRIED]] if len(suspects) > 1 else []
        tried.sort(key=lambda each: (math.inf if each.left is None else each.left, each.sqnr_db))
        return Diagnosis(
            [*tried, *suspects[len(tried) :]],
            self._repair(tried[: len(suspects) - 1], floats, answers),
            sum(len(batch.indices) for batch in self.batches),
        )

    def _noise(self, pieces: Sequence[Segment]) -> dict[str, float]:
        """Signal to noise of each piece in dB, run in INT8 on the activations of fp32."""
        names = sorted({piece.output for piece in pieces} | {name for piece in pieces for name in piece.inputs})
        fed = {each.name for each in self.setting.fp32.session.get_inputs()}
        inner = [name for name in names if name not in fed]
        reference = self._open(segments.exposed(self.fp32, inner))
        sums = {piece.output: SignalNoise() for piece in pieces}
        candidate: Model | None = None
        for batch in self.batches:
            values = dict(zip(inner, reference.values(batch), strict=True)) | dict(batch.feed)
            if candidate is None:
                candidate = self._open(segments.cut(self.int8, pieces, values))
            reads = {segments.fed(name): values[name] for piece in pieces for name in piece.inputs}
            found = candidate.values(Batch(batch.indices, reads))
            for name, array in zip(candidate.outputs, found, strict=True):
                _add(sums[name], values[name], array)
        return {name: each.sqnr_db for name, each in sums.items() if each.sqnr_db is not None}

    def _suspects(
        self, quantized: Mapping[str, Segment], floats: Mapping[str, Segment], noise: Mapping[str, float]
    ) -> list[Suspect]:
        """The noisiest first; tensors that the same nodes make (an LSTM has three outputs) are one suspect."""
        known = excludable()
        found: dict[tuple[str, ...], Suspect] = {}
        for output in sorted(noise, key=lambda name: (noise[name], name)):
            nodes = named(known, [self.int8.graph.node[place].name for place in quantized[output].nodes])
            if known is None:
                weighted = segments.weighted_nodes(self.fp32, floats[output])
                nodes = {node.name: node.op_type for node in weighted if node.name}
            names = tuple(nodes)
            if names in found:
                found[names] = replace(found[names], outputs=(*found[names].outputs, output))
            elif names:
                found[names] = Suspect(names, nodes[names[0]], (output,), noise[output])
        return list(found.values())

    def _alone(
        self, suspect: Suspect, floats: Mapping[str, Segment], answers: Sequence[dict[str, np.ndarray]]
    ) -> Suspect:
        found = self._compared([suspect], floats, answers)
        return replace(suspect, left=found.max_abs if found is not None else None)

    def _repair(
        self, tried: Sequence[Suspect], floats: Mapping[str, Segment], answers: Sequence[dict[str, np.ndarray]]
    ) -> Repair | None:
        """Keep the worst float, then the two worst, and so on; the first that passes, else the best."""
        best: Repair | None = None
        for count in range(1, len(tried) + 1):
            found = self._compared(tried[:count], floats, answers)
            if found is None or found.max_abs is None:
                continue
            nodes = tuple(dict.fromkeys(name for each in tried[:count] for name in each.nodes))
            repair = Repair(nodes, found.max_abs, self._holds(found))
            if repair.passed:
                return repair
            best = repair if best is None or repair.max_abs < best.max_abs else best
        return best

    def _holds(self, found: Comparison) -> bool:
        rules = [rule for rule in judge(found, self.params) if rule.name not in ("max_flip_rate", "max_task_drop")]
        limit = self.params.max_flip_rate
        few = limit is None or found.flips.flips <= limit * found.flips.count
        return few and all(rule.passed for rule in rules)

    def _compared(
        self, suspects: Sequence[Suspect], floats: Mapping[str, Segment], answers: Sequence[dict[str, np.ndarray]]
    ) -> Comparison | None:
        """The INT8 model with these pieces float against fp32; None where the graphs do not fit into one model."""
        try:
            kept = [floats[output] for each in suspects for output in each.outputs]
            model = self._open(segments.grafted(self.int8, self.fp32, kept))
            found = Comparison(self.decider)
            for batch, answer in zip(self.batches, answers, strict=True):
                found.update(batch.indices, answer, model.answer(batch))
        except StageError:
            return None
        finally:
            self.tick()
        return found

    def _open(self, model: ModelProto) -> Model:
        name = "a variant of the model"
        return Model(open_session(model.SerializeToString(), self.setting.threads, name=name), name)


def _add(sums: SignalNoise, reference: np.ndarray, candidate: np.ndarray) -> None:
    if reference.dtype.kind != "f" or reference.shape != candidate.shape:
        return
    expected, found = (each.astype(np.float64).ravel() for each in (reference, candidate))
    finite = np.isfinite(expected) & np.isfinite(found)
    sums.update(expected[finite], (found - expected)[finite])
