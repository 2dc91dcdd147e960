"""Which quantized nodes are at fault, and would keeping them float repair it? Answered by trying it.

Each quantized node is first the only one in INT8: the error that it alone brings to the outputs ranks them. Then the
worst are the only ones in fp32, as few as the rules need. This is the ranking and bisection with add-back that tools
for mixed precision use to choose nodes, on the samples that missed.
"""

import csv
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.params import Parity
from stages.common.compare import Comparison, Decider
from stages.common.data.evaldata import Batch
from stages.common.model import ir_conversion, model_file
from stages.common.model.sessions import open_session
from stages.parity import segments
from stages.parity.serve import Model
from stages.parity.setting import Setting
from stages.parity.verdict import judge

RANKED_ON = 8
"""Samples on which each node is ranked, at least one batch of them."""

ADD_BACKS = 8
"""How many nodes of a repair are tried to do without."""

LARGEST_MODEL = 600_000_000
"""Weights of both models in bytes beyond which no variant is made: it takes some four times their room in memory."""


@dataclass(frozen=True)
class Suspect:
    """A quantized piece of the graph.

    Attributes:
        nodes: the names to give to `quantize.exclude_nodes`.
        op_type: of the first of them.
        sqnr_db: signal to noise of the model's outputs where this piece alone is in INT8, the lowest of all outputs.
        max_abs: the largest absolute error of the outputs then.
    """

    nodes: tuple[str, ...]
    op_type: str
    sqnr_db: float = math.inf
    max_abs: float = 0.0


@dataclass(frozen=True)
class Repair:
    """Nodes whose exclusion was tried and found to be enough for the rules, and the largest error that it leaves."""

    nodes: tuple[str, ...]
    max_abs: float


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
        batches: the samples to try, in the batches in which they missed, the worst first.
        decider: as in the judgement.
        params: the rules to meet.
        tick: is called for each set of nodes that was tried.
    """
    models = model_file.read(paths.FP32_MODEL, "export"), model_file.read(paths.INT8_MODEL, "quantize")
    if sum(map(model_file.weight_bytes, models)) > LARGEST_MODEL:
        return Diagnosis(reason="the models are too large to try variants of them")
    fp32, int8 = map(ir_conversion.to_proto, models)
    pieces = quantized_pieces(fp32, int8)
    if not pieces:
        return Diagnosis(reason="no quantized node stands between tensors of fp32, and has a name to exclude it by")
    names = list(pieces)
    switches = {names[place]: f"keep/{place}" for place in range(len(names))}
    variant = segments.switched(int8, fp32, {switches[each]: pieces[each].segments for each in names})
    try:
        model = Model(open_session(variant.SerializeToString(), setting.threads, name="a variant of the model"), "it")
        trials = _Trials(model, switches, batches, [setting.fp32.answer(batch) for batch in batches], decider, tick)
        ranked = [trials.alone(Suspect(nodes, piece.op_type)) for nodes, piece in pieces.items()]
        ranked.sort(key=lambda each: (each.sqnr_db, -each.max_abs, each.nodes))
        repair = trials.repair(ranked, params)
    except StageError as error:
        return Diagnosis(reason=f"the two graphs do not go together: {error}")
    return Diagnosis(ranked, repair, sum(len(batch.indices) for batch in batches))


@dataclass
class Piece:
    """What the same named nodes make: one tensor, or several (an LSTM has three outputs)."""

    op_type: str
    segments: list[segments.Segment]


def quantized_pieces(fp32: ModelProto, int8: ModelProto) -> dict[tuple[str, ...], Piece]:
    """The pieces of fp32 that are quantized in INT8, by the names of their nodes, in the order of the graph.

    A piece without such a node that works on quantized values (the operators after a Conv whose output is quantized)
    goes with the one that it follows.
    """
    shared = segments.shared_tensors(fp32.graph, int8.graph)
    floats = segments.segments(fp32.graph, shared)
    known, originals = excludable(), {node.name for node in fp32.graph.node}
    found: dict[tuple[str, ...], Piece] = {}
    owners: dict[str, tuple[str, ...]] = {}
    for output, piece in segments.segments(int8.graph, shared).items():
        made = [int8.graph.node[place] for place in piece.nodes]
        if output not in floats:
            continue
        quantized = any(map(segments.is_quantized, made))
        if known is not None:
            # One node that quantizes an activation may serve several others, and bears the name of one of them.
            own = [node.name for node in made if not node.op_type.endswith("uantizeLinear")]
            nodes = named(known, own, originals)
        elif quantized:
            weighted = segments.weighted_nodes(fp32, floats[output])
            nodes = {node.name: node.op_type for node in weighted if node.name}
        else:
            nodes = {}
        names = tuple(nodes)
        if not names and quantized:
            names = next((owners[name] for name in piece.inputs if name in owners), ())
        if names:
            owners[output] = names
            found.setdefault(names, Piece(nodes.get(names[0], ""), [])).segments.append(floats[output])
    return found


def excludable() -> dict[str, str] | None:
    """The quantized nodes that `metrics/details/nodes.csv` lists, name to op type; None where quantize left no such file."""
    if not paths.NODES.exists():
        return None
    with paths.NODES.open(newline="", encoding="utf-8") as file:
        return {row["node"]: row["op_type"] for row in csv.DictReader(file) if row["quantized"] == "true"}


def named(known: Mapping[str, str], made: Iterable[str], originals: Collection[str]) -> dict[str, str]:
    """Which known nodes became these nodes of the INT8 graph.

    Args:
        known: quantized nodes, name to op type.
        made: names in INT8; quantize calls what it makes of a node `<node>` or `<node>_<more>`.
        originals: names of the nodes of fp32: one that was there before was not made of another.
    """
    found = {}
    for name in made:
        ends = [] if name in originals else [place for place in range(len(name) - 1, 0, -1) if name[place] == "_"]
        stem = next((each for each in (name, *(name[:end] for end in ends)) if each in known), None)
        if stem is not None:
            found[stem] = known[stem]
    return found


@dataclass(frozen=True)
class _Trials:
    """The model with its switches, and the samples with the answers of fp32."""

    model: Model
    switches: Mapping[tuple[str, ...], str]
    batches: Sequence[Batch]
    answers: Sequence[dict[str, np.ndarray]]
    decider: Decider
    tick: Callable[[], object]

    def alone(self, suspect: Suspect) -> Suspect:
        """With the figures of this piece as the only one in INT8."""
        found = self.compared(set(self.switches) - {suspect.nodes}, RANKED_ON)
        sqnr = [each.signal.sqnr_db for each in found.floats if each.signal.sqnr_db is not None]
        return replace(suspect, sqnr_db=min(sqnr, default=math.inf), max_abs=found.max_abs or 0.0)

    def repair(self, ranked: Sequence[Suspect], params: Parity) -> Repair | None:
        """Keep the worst float, as few as will do by bisection; then quantize again what need not be float.

        One of the least stays quantized. Not more than `ADD_BACKS` are tried to be quantized again.
        """

        def tried(kept: Sequence[Suspect]) -> Repair | None:
            if not kept or not _holds(found := self.compared({each.nodes for each in kept}), params):
                return None
            return Repair(tuple(dict.fromkeys(name for each in kept for name in each.nodes)), found.max_abs or 0.0)

        few, kept, best = 0, list(ranked), None
        for suspect in ranked[: -ADD_BACKS - 1 : -1]:
            without = [each for each in ranked if each is not suspect]
            if best := tried(without):
                kept = without
                break
        if best is None:
            return None
        while len(kept) - few > 1:
            middle = (few + len(kept)) // 2
            if found := tried(kept[:middle]):
                kept, best = kept[:middle], found
            else:
                few = middle
        for suspect in kept[: -ADD_BACKS - 1 : -1]:
            fewer = [each for each in kept if each is not suspect]
            if found := tried(fewer):
                kept, best = fewer, found
        return best

    def compared(self, kept: set[tuple[str, ...]], samples: int | None = None) -> Comparison:
        """The model with these pieces float against fp32, on the first samples or on all."""
        flags = {switch: np.array(nodes in kept) for nodes, switch in self.switches.items()}
        found = Comparison(self.decider)
        for batch, answer in zip(self.batches, self.answers, strict=True):
            if samples is not None and found.samples >= samples:
                break
            found.update(batch.indices, answer, self.model.answer(Batch(batch.indices, batch.feed | flags)))
        self.tick()
        return found


def _holds(found: Comparison, params: Parity) -> bool:
    """Whether the rules hold on the few samples, which no rule with a confidence bound can judge."""
    rules = [rule for rule in judge(found, params) if rule.name not in ("max_flip_rate", "max_task_drop")]
    limit = params.max_flip_rate
    few = limit is None or found.flips.flips <= limit * found.flips.count
    return few and all(rule.passed for rule in rules)
