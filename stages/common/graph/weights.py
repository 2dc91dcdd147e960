"""Which nodes have a weight: a constant float tensor that a quantizer could make smaller."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from stages.common.graph.walk import MICROSOFT, all_nodes, constant, default, paths

WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "EmbedLayerNormalization": (2, 3, 4),
    "Gather": (0,),
    **dict.fromkeys(("Attention", "Conv", "ConvTranspose", "FusedConv", "FusedGemm"), (1,)),
    **dict.fromkeys(("FusedMatMul", "Gemm", "MatMul"), (0, 1)),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (1, 2)),
}
"""The inputs, by index, that hold the weights of operators that quantizers know."""

CHANNEL_AXES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Attention", "Gemm", "MatMul"), (-1,)),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (0, 1)),
    "Conv": (0,),
    "ConvTranspose": (1,),
}
"""The axes of a weight with one scale per index, if it has a scale per channel; of Gemm, as if transB were 0."""

DEFAULT_OPERATORS: Mapping[str, frozenset[str]] = {
    "dynamic": frozenset({"Attention", "EmbedLayerNormalization", "Gather", "Gemm", "LSTM", "MatMul"}),
    "static": frozenset({"Conv", "Gemm", "MatMul"}),
    "weight_only": frozenset({"Gather", "Gemm", "MatMul"}),
    "stored": frozenset({*CHANNEL_AXES, "Gather"}),
}
"""The operators that each method quantizes by default."""

_MICROSOFT_OPERATORS = frozenset({"Attention", "EmbedLayerNormalization", "FusedConv", "FusedGemm", "FusedMatMul"})

_IN_ATTRIBUTES = ("Linear", "SVM", "TreeEnsemble")
"""Prefixes of the operators in ai.onnx.ml that keep their parameters in attributes."""

_SHAPE_ONLY = frozenset({"Shape", "Size"})
"""Operators that do not read the values of their input."""

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class Weight:
    """A constant input of a node: its `index`, the `name` of the tensor, NumPy's name of the dtype."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class WeightedNode:
    """A node with at least one weight.

    Names are unique in a clean model; op_type includes the domain unless it is the one that `WEIGHT_INPUTS` means;
    `graph` is the path of the subgraph, empty for the main graph.
    """

    name: str
    op_type: str
    graph: str
    weights: tuple[Weight, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all its weights."""
        return sum(weight.nbytes for weight in self.weights)


def weighted_nodes(model: ir.Model) -> list[WeightedNode]:
    """Every node with a weight, subgraphs included, in the order of the graphs.

    A weight is a float initializer at an input listed in `WEIGHT_INPUTS`; for other operators, a float initializer with
    at least two dimensions above 1 (so that a bias does not count).
    """
    nodes = []
    for graph, path in paths(model).items():
        for node in graph:
            weights = tuple(weight for index in range(len(node.inputs)) if (weight := _weight(node, index)))
            if weights:
                nodes.append(WeightedNode(node.name or "", known_as(node), path, weights))
    return nodes


def parameters_in_attributes(model: ir.Model) -> list[str]:
    """The operator types in the model that keep their parameters in attributes: trees and linear models."""
    types = {node.op_type for node in all_nodes(model) if node.domain == "ai.onnx.ml"}
    return sorted(name for name in types if name.startswith(_IN_ATTRIBUTES))


def weight_inputs(node: ir.Node) -> tuple[int, ...] | None:
    """The inputs that hold the weights of the node; None if its operator is not in `WEIGHT_INPUTS`."""
    return WEIGHT_INPUTS.get(known_as(node))


def known_as(node: ir.Node) -> str:
    """The operator's name, with the domain if ambiguous: `Attention` is ONNX Runtime's, but ONNX has one too."""
    usual = MICROSOFT if node.op_type in _MICROSOFT_OPERATORS else ""
    return node.op_type if node.domain == usual else f"{node.domain or 'ai.onnx'}.{node.op_type}"


def _weight(node: ir.Node, index: int) -> Weight | None:
    value, places = node.inputs[index], weight_inputs(node)
    if value is None or node.op_type in _SHAPE_ONLY or (places is not None and index not in places):
        return None
    tensor = constant(value) or default(value)
    if tensor is None or tensor.dtype not in _FLOATS:
        return None
    shape = tuple(tensor.shape.numpy())
    if places is None and sum(size > 1 for size in shape) < 2:
        return None
    return Weight(index, value.name or "", shape, str(tensor.dtype.numpy()), tensor.nbytes)
