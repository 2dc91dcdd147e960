"""The model that tests of several passes share."""

from onnx import ModelProto, helper

from tests.quantize.running import graph, normal


def dense(opset: int = 17) -> ModelProto:
    """A layer of 8 units over 16 values, its weight behind a Transpose, nodes without names."""
    nodes = [
        helper.make_node("Transpose", ["T"], ["W"]),
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return graph(nodes, {"x": ("n", 16)}, {"y": ("n", 8)}, {"T": normal(8, 16)}, opset)
