"""Other params of quantize that may keep the answers, most promising first; each is tried before it is advised."""

import csv
from collections.abc import Iterator

from stages.common import isa
from stages.common.base import paths
from stages.common.base.params import Params
from stages.parity.trials import Overrides

CONVOLUTIONS = {"Conv", "ConvTranspose"}


def kept_float() -> set[str]:
    """The operator types that quantize kept float in some node, from `metrics/details/nodes.csv`."""
    if not paths.NODES.exists():
        return set()
    with paths.NODES.open(newline="", encoding="utf-8") as file:
        return {row["op_type"] for row in csv.DictReader(file) if row["quantized"] != "true"}


def row_scale(params: Params) -> list[Overrides]:
    """One activation scale per row, if quantize used one per tensor: it removes the batch effect."""
    tensor = params.quantize.activation_scale == "tensor" and params.quantize.method == "dynamic"
    return [{"quantize.activation_scale": "row"}] if tensor else []


def static(params: Params) -> list[Overrides]:
    """Method static, if convolutions stayed float only because the current method does not quantize them."""
    applies = params.quantize.method in ("dynamic", "weight_only") and params.quantize.op_types is None
    return [{"quantize.method": "static", **_eight_bits(params)}] if applies and kept_float() & CONVOLUTIONS else []


def stored(params: Params) -> list[Overrides]:
    """Method stored, unless it is set: as small as INT8, as fast as fp32, with less noise than INT8 arithmetic."""
    return [{"quantize.method": "stored", **_eight_bits(params)}] if params.quantize.method != "stored" else []


def formats(params: Params, *, depends_on_batch: bool) -> Iterator[Overrides]:
    """Other params of quantize for all nodes, then method auto, which takes longest.

    Args:
        params: all params.
        depends_on_batch: whether the batch may have caused the miss.
    """
    quantize = params.quantize
    if depends_on_batch:
        yield from row_scale(params)
    yield from static(params)
    if not quantize.per_channel and quantize.method != "weight_only":
        yield {"quantize.per_channel": True}
    if not (quantize.portable or quantize.reduce_range) and isa.here() in isa.SATURATING:
        yield {"quantize.portable": True}
    if not depends_on_batch:
        yield from row_scale(params)
    if quantize.method != "dynamic":
        yield {"quantize.method": "dynamic", **_eight_bits(params)}
    if quantize.method != "weight_only":
        yield {"quantize.method": "weight_only", "quantize.weight_type": "QInt8"}
    elif quantize.weight_type.endswith("4"):
        yield {"quantize.weight_type": "QInt8"}
    yield from stored(params)
    yield from auto(params)


def auto(params: Params) -> list[Overrides]:
    """Method auto, unless the model comes from auto or a plan."""
    searched = params.quantize.method in ("auto", "plan")
    return [] if searched else [{"quantize.method": "auto", **_eight_bits(params)}]


def _eight_bits(params: Params) -> Overrides:
    return {"quantize.weight_type": "QInt8"} if params.quantize.weight_type.endswith("4") else {}
