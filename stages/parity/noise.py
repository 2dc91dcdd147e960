"""Where the noise of an INT8 model comes in: the quantized nodes, those that add most of it first.

Both models run with the tensors around each quantized node as further outputs. What a node adds is the noise of what it
makes, as a share of the signal, less the noise of what it reads. It ranks nodes; whether keeping one float repairs
anything is for a trial to say.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.judging.serve import Call
from stages.common.model.sessions import open_session, run
from stages.parity.candidates import Node
from stages.parity.setting import Setting


@dataclass(frozen=True)
class _Surroundings:
    """Tensors around what became of one node, as far as fp32 has them, too."""

    node: str
    reads: frozenset[str]
    makes: frozenset[str]


def noisiest_nodes(setting: Setting, nodes: Sequence[Node], stream: Iterable[Call]) -> list[str]:
    """Names of quantized nodes, the one that adds most noise first; nothing where that cannot be seen.

    Args:
        setting: the models as they were judged.
        nodes: from `candidates.read_nodes`.
        stream: calls whose samples moved.
    """
    fp32, int8 = onnx.load(paths.FP32_MODEL), onnx.load(paths.INT8_MODEL)
    places = _surroundings(fp32.graph, int8.graph, nodes)
    wanted = sorted({name for place in places for name in place.reads | place.makes})
    if not wanted:
        return []
    signal, noise = dict.fromkeys(wanted, 0.0), dict.fromkeys(wanted, 0.0)
    try:
        sessions = [
            open_session(_with_outputs(model, wanted).SerializeToString(), setting.serving.threads, name="the model")
            for model in (fp32, int8)
        ]
        for call in stream:
            before, after = (run(session, call.feed, wanted, name="the model") for session in sessions)
            for name, one, other in zip(wanted, before, after, strict=True):
                if isinstance(one, np.ndarray) and one.dtype.kind == "f" and one.shape == other.shape:
                    signal[name] += float(np.square(one, dtype=np.float64).sum())
                    noise[name] += float(np.square(other.astype(np.float64) - one).sum())
    except StageError:
        return []  # ONNX Runtime does not give these tensors out
    share = {name: noise[name] / signal[name] if signal[name] > 0 else 0.0 for name in wanted}
    added = {place.node: _added(place, share) for place in places}
    return sorted(added, key=lambda node: (-added[node], node))


def _added(place: _Surroundings, share: Mapping[str, float]) -> float:
    read = max((share[name] for name in place.reads), default=0.0)
    return max((share[name] for name in place.makes), default=0.0) - read


def _surroundings(fp32: onnx.GraphProto, int8: onnx.GraphProto, nodes: Sequence[Node]) -> list[_Surroundings]:
    shared = {name for node in fp32.node for name in node.output if name}
    by_name = {node.name: node for node in int8.node}
    places = []
    for node in nodes:
        made = [by_name[name] for name in node.becomes if name in by_name]
        makes = frozenset(name for each in made for name in each.output if name in shared)
        reads = frozenset(name for each in made for name in each.input if name in shared) - makes
        if node.quantized and makes:
            places.append(_Surroundings(node.name, reads, makes))
    return places


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with these tensors as further outputs; ONNX Runtime infers their types."""
    listed = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in listed)
    return model
