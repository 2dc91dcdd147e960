"""The choices for a node: float, or a way to quantize it, that is a method with its params."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stages.common.base.params import Quantize
from stages.common.graph.weights import WeightedNode
from stages.quantize.auto.problem import FLOAT
from stages.quantize.methods import shifted
from stages.quantize.methods.static import pad_filters

BLOCKED = "blocked"
"""The layout that ONNX Runtime uses for float convolutions (NCHWc)."""

STATIC = "static"
"""8 bits with a fixed scale."""

PADDED = "static_padded"
"""Static, with filters of zeros for a faster kernel."""

DYNAMIC = "dynamic"
"""8 bits with one scale per tensor, computed at run time."""

ROW = "row"
"""8 bits with one scale per row, computed at run time."""

SMOOTH, SMOOTH_ROW = "smooth", "smooth_row"
"""Dynamic and row, with smoothed activations."""

STORED = "stored"
"""Weights in 8 bits in the file and float in memory: smaller, but not faster."""


@dataclass(frozen=True)
class Choice:
    """One way to quantize a node.

    Attributes:
        name: its name in plan.json and on screen.
        method: the `quantize.method` that it uses.
        changes: other keys of the section `quantize` that it sets.
        smoothed: whether the activation is smoothed first, see `smooth`.
        padded: whether a convolution gets filters of zeros, see `pad_filters`.
    """

    name: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    smoothed: bool = False
    padded: bool = False

    @property
    def in_subgraphs(self) -> bool:
        """Whether it can be used in the bodies of If and Loop: it needs no calibration."""
        return self.method != "static" and not self.smoothed

    def params(self, params: Quantize) -> Quantize:
        """The section `quantize` of a node with this choice."""
        return params.model_copy(update={"method": self.method, "op_types": None, **self.changes})


KEPT = FLOAT
"""The name of the choice to keep a node float."""

_SIGNED = {"weight_type": "QInt8"}

CHOICES = {
    choice.name: choice
    for choice in (
        Choice("static", "static", {**_SIGNED, "activation_type": "QUInt8", "per_channel": True}),
        Choice(PADDED, "static", {**_SIGNED, "activation_type": "QUInt8", "per_channel": True}, padded=True),
        Choice("static_tensor", "static", {**_SIGNED, "activation_type": "QUInt8", "per_channel": False}),
        Choice("weight_only", "weight_only", _SIGNED),
        Choice("weight_only_4", "weight_only", {"weight_type": "QInt4"}),
        Choice(STORED, "stored", {**_SIGNED, "per_channel": True}),
        Choice("dynamic", "dynamic", {**_SIGNED, "per_channel": True, "activation_scale": "tensor"}),
        Choice("dynamic_tensor", "dynamic", {**_SIGNED, "per_channel": False, "activation_scale": "tensor"}),
        Choice("row", "dynamic", {**_SIGNED, "per_channel": True, "activation_scale": "row"}),
        Choice(SMOOTH, "dynamic", {**_SIGNED, "per_channel": True, "activation_scale": "tensor"}, smoothed=True),
        Choice(SMOOTH_ROW, "dynamic", {**_SIGNED, "per_channel": True, "activation_scale": "row"}, smoothed=True),
        Choice(
            "dynamic_unsigned",
            "dynamic",
            {"weight_type": "QUInt8", "per_channel": False, "activation_scale": "tensor"},
        ),
    )
}
"""By name."""

_PRODUCT = (
    "dynamic",
    "dynamic_tensor",
    "row",
    "smooth",
    "smooth_row",
    "static",
    "static_tensor",
    "weight_only",
    "weight_only_4",
    "stored",
)
_OF = {
    "Attention": ("dynamic", "dynamic_tensor", "stored"),
    "Conv": ("static", PADDED, "dynamic_unsigned", "row", "stored"),
    "ConvTranspose": ("stored",),
    "EmbedLayerNormalization": ("dynamic",),
    "GRU": ("stored",),
    "Gather": ("dynamic", "dynamic_tensor", "weight_only_4", "stored"),
    "Gemm": _PRODUCT,
    "LSTM": ("dynamic", "dynamic_tensor", "smooth", "stored"),
    "MatMul": _PRODUCT,
    "RNN": ("stored",),
}

OP_TYPES = frozenset(_OF)


def of_node(node: WeightedNode) -> list[Choice]:
    """The choices of a node besides float, by its operator; its method may still keep it float."""
    names = _OF.get(node.op_type, ())
    if node.op_type == "Conv":
        suited = {ROW: shifted.suited, PADDED: pad_filters.suited}
        names = tuple(name for name in names if name not in suited or suited[name](node.weights[0].shape))
    return [CHOICES[name] for name in names if not node.graph or CHOICES[name].in_subgraphs]


def kernel(choice: str) -> str:
    """The choice that runs the same kernel and loads no slower: float for `stored`, else the choice itself."""
    return KEPT if choice == STORED else choice


def forms(op_type: str, choice: str) -> tuple[str, str]:
    """The forms of the activation that a node's kernel reads, and of its output."""
    if op_type == "Conv":
        if choice in (KEPT, STORED):
            return BLOCKED, BLOCKED
        return {STATIC: (STATIC, STATIC), PADDED: (STATIC, STATIC), ROW: (FLOAT, FLOAT)}.get(choice, (DYNAMIC, FLOAT))
    if op_type not in ("Attention", "Gemm", "MatMul"):
        return FLOAT, FLOAT
    if choice in (ROW, SMOOTH, SMOOTH_ROW):
        return choice, FLOAT
    if choice.startswith(STATIC):
        return STATIC, FLOAT
    return (DYNAMIC, FLOAT) if choice.startswith(DYNAMIC) else (FLOAT, FLOAT)
