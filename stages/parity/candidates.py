"""Which other ways to quantize may keep the answers, the most promising first. Each is tried before it is advised."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stages.common import isa
from stages.common.base import paths
from stages.common.base.params import Params
from stages.parity.trials import Overrides

CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Node:
    """A row of `metrics/details/nodes.csv`.

    Attributes:
        becomes: names of the nodes of the INT8 file that it became.
    """

    name: str
    op_type: str
    quantized: bool
    becomes: tuple[str, ...]


def read_nodes() -> list[Node]:
    """What quantize did with each node that has a weight; nothing where it left no such file."""
    if not paths.NODES.exists():
        return []
    with paths.NODES.open(newline="", encoding="utf-8") as file:
        return [
            Node(
                row["node"],
                row["op_type"],
                row["quantized"] == "true",
                tuple(filter(None, (row.get("becomes") or "").split(";"))),
            )
            for row in csv.DictReader(file)
        ]


def row_scale(params: Params) -> list[Overrides]:
    """One scale for each row of activations, where quantize takes one for all: it ends the batch effect."""
    tensor = getattr(params.quantize, "activation_scale", None) == "tensor" and params.quantize.method == "dynamic"
    return [{"quantize.activation_scale": "row"}] if tensor else []


def static(params: Params, nodes: Sequence[Node]) -> list[Overrides]:
    """Static, where convolutions stayed float only because the method does not quantize them."""
    floats = any(node.op_type in CONVOLUTIONS and not node.quantized for node in nodes)
    applies = floats and params.quantize.method != "static" and params.quantize.op_types is None
    return [{"quantize.method": "static", **_eight_bits(params)}] if applies else []


def formats(params: Params, nodes: Sequence[Node], *, depends_on_batch: bool) -> Iterator[Overrides]:
    """Other params of quantize for all nodes.

    Args:
        params: of the pipeline.
        nodes: from `read_nodes`.
        depends_on_batch: whether the miss may be one of the batch.
    """
    quantize = params.quantize
    if depends_on_batch:
        yield from row_scale(params)
    yield from static(params, nodes)
    if not quantize.per_channel and quantize.method != "weight_only":
        yield {"quantize.per_channel": True}
    if not quantize.reduce_range and quantize.weight_type == "QInt8" and isa.here() in isa.SATURATING:
        yield {"quantize.reduce_range": True}
    if not depends_on_batch:
        yield from row_scale(params)
    if quantize.method != "dynamic":
        yield {"quantize.method": "dynamic", **_eight_bits(params)}
    if quantize.method != "weight_only":
        yield {"quantize.method": "weight_only", "quantize.weight_type": "QInt8"}
    elif quantize.weight_type.endswith("4"):
        yield {"quantize.weight_type": "QInt8"}


def exclusions(params: Params, noisiest: Sequence[str]) -> Iterator[Overrides]:
    """The noisiest nodes kept float: 1, 2, 4, ... of them, up to half of the quantized ones."""
    count = 1
    while count <= (len(noisiest) + 1) // 2:
        names = [*params.quantize.exclude_nodes, *noisiest[:count]]
        yield {"quantize.exclude_nodes": tuple(dict.fromkeys(names))}
        count *= 2


def _eight_bits(params: Params) -> Overrides:
    return {"quantize.weight_type": "QInt8"} if params.quantize.weight_type.endswith("4") else {}
