"""Which nodes of a model have a weight: a constant tensor of floats that a quantizer could make smaller."""

import math
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

from stages.quantize.graphs import Scope, all_nodes, scopes

WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "Attention": (1,),
    "Conv": (1,),
    "ConvTranspose": (1,),
    "EmbedLayerNormalization": (2, 3, 4),
    "FusedConv": (1,),
    "FusedGemm": (1,),
    "FusedMatMul": (0, 1),
    "GRU": (1, 2),
    "Gather": (0,),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
}
"""Where the operators that quantizers know have their weights: indices of inputs."""

_MICROSOFT = frozenset({"Attention", "EmbedLayerNormalization", "FusedConv", "FusedGemm", "FusedMatMul"})

_IN_ATTRIBUTES = frozenset(
    {
        "LinearClassifier",
        "LinearRegressor",
        "SVMClassifier",
        "SVMRegressor",
        "TreeEnsemble",
        "TreeEnsembleClassifier",
        "TreeEnsembleRegressor",
    }
)

_SHAPE_ONLY = frozenset({"Shape", "Size"})
"""What has a tensor as input and does not read its values."""

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


@dataclass(frozen=True)
class Weight:
    """A constant input of a node: `index` among its inputs, `name` of the tensor, NumPy's name of the dtype."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class WeightedNode:
    """A node with one weight or more.

    Attributes:
        name: of the node, unique in the model once it is normalised.
        op_type: of the node; with its domain in front where that is not the one that `WEIGHT_INPUTS` means.
        graph: where the node stands: empty for the main graph, else the path of the subgraph.
        weights: its constant float inputs that count as weights.
    """

    name: str
    op_type: str
    graph: str
    weights: tuple[Weight, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all its weights."""
        return sum(weight.nbytes for weight in self.weights)


def weighted_nodes(model: ModelProto) -> list[WeightedNode]:
    """Every node with a weight, in subgraphs too, in the order of the graphs.

    A weight is a float initializer at a weight's place of an operator of `WEIGHT_INPUTS`; of any other operator, a
    float initializer with at least two dimensions above 1 (so that a bias is none).
    """
    found = []
    for scope in scopes(model):
        for node in scope.graph.node:
            weights = tuple(weight for index in range(len(node.input)) if (weight := _weight(scope, node, index)))
            if weights:
                found.append(WeightedNode(node.name, _known_as(node), scope.path, weights))
    return found


def parameters_in_attributes(model: ModelProto) -> list[str]:
    """The types of operator in the model that keep what they learnt in attributes: trees, linear models."""
    return sorted({node.op_type for node in all_nodes(model) if node.domain == "ai.onnx.ml"} & _IN_ATTRIBUTES)


def weight_inputs(node: NodeProto) -> tuple[int, ...] | None:
    """Where the node has its weights; None where its operator is not one of `WEIGHT_INPUTS`."""
    return WEIGHT_INPUTS.get(_known_as(node))


def _known_as(node: NodeProto) -> str:
    """The operator's name; `Attention` alone is that of ONNX Runtime, for one, and ONNX has one too."""
    domain = node.domain or "ai.onnx"
    usual = "com.microsoft" if node.op_type in _MICROSOFT else "ai.onnx"
    return node.op_type if domain == usual else f"{domain}.{node.op_type}"


def _weight(scope: Scope, node: NodeProto, index: int) -> Weight | None:
    places = weight_inputs(node)
    if not node.input[index] or node.op_type in _SHAPE_ONLY or (places is not None and index not in places):
        return None
    tensor = scope.constant(node.input[index]) or scope.default(node.input[index])
    if tensor is None or tensor.data_type not in _FLOATS:
        return None
    shape = tuple(tensor.dims)
    if places is None and sum(size > 1 for size in shape) < 2:
        return None
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return Weight(index, tensor.name, shape, str(dtype), math.prod(shape) * dtype.itemsize)
