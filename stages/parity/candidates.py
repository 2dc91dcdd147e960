"""Other params of quantize that may keep the answers, most promising first; each is tried before it is advised."""

import csv
import math
from collections.abc import Iterator

from stages.common import isa
from stages.common.base import paths
from stages.common.base.files import read_json
from stages.common.base.params import Params
from stages.parity.trials import Overrides

CONVOLUTIONS = {"Conv", "ConvTranspose"}

MARGIN = "quantize.search.margin"

SPARE = 0.1
"""The share of a tolerance that a larger margin of method auto is to leave on the judged samples."""

LARGEST_MARGIN = 0.9
"""With more, hardly any model is left to find."""


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


def formats(params: Params, *, depends_on_batch: bool, strain: float) -> Iterator[Overrides]:
    """Other params of quantize for all nodes, then method auto, which takes longest; under auto a larger margin first.

    Args:
        params: all params.
        depends_on_batch: whether the batch may have caused the miss.
        strain: the largest share of a tolerance that the judged samples use.
    """
    quantize = params.quantize
    yield from larger_margin(params, strain)
    if depends_on_batch:
        yield from row_scale(params)
    yield from static(params)
    if not quantize.per_channel and quantize.method in ("dynamic", "static", "stored"):
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


def larger_margin(params: Params, strain: float) -> list[Overrides]:
    """A larger margin for method auto: its model passed on the search samples, and the judged ones need this much more.

    Args:
        params: all params.
        strain: the largest share of a tolerance that the judged samples use.
    """
    if params.quantize.method != "auto" or not paths.PLAN.exists() or math.isinf(strain):
        return []
    searched = read_json(paths.PLAN, "quantize").get("strain") or 0.0
    margin = math.ceil(100 * (1 - (1 - SPARE) * searched / strain)) / 100
    return [{MARGIN: margin}] if params.quantize.search.margin < margin <= LARGEST_MARGIN else []


def auto(params: Params) -> list[Overrides]:
    """Method auto, unless it is set."""
    return [] if params.quantize.method == "auto" else [{"quantize.method": "auto", **_eight_bits(params)}]


def searches(overrides: Overrides) -> bool:
    """Whether a variant comes from a search of method auto."""
    return overrides.get("quantize.method") == "auto" or MARGIN in overrides


def _eight_bits(params: Params) -> Overrides:
    return {"quantize.weight_type": "QInt8"} if params.quantize.weight_type.endswith("4") else {}
