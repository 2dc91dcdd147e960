"""Operators that the optimizer fused are split, and give the same answers."""

import numpy as np
import pytest
from onnx import NodeProto, helper

from stages.common.graph.passes import compute_constants, split_fused
from tests.onnx_models import applied, opened
from tests.quantize.running import graph, normal, run


def _fused(op_type: str, inputs: list[str], **attributes: object) -> NodeProto:
    return helper.make_node(op_type, inputs, ["y"], "work", domain="com.microsoft", **attributes)


@pytest.mark.parametrize(
    ("node", "op_types"),
    [
        (_fused("FusedMatMul", ["x", "M"], transB=1, alpha=0.5), ["MatMul"]),
        (_fused("FusedMatMul", ["x", "S"], transB=1), ["MatMul"]),
        (_fused("FusedMatMul", ["x", "M"], transA=1), None),
        (_fused("FusedMatMul", ["M", "x"], transB=1), None),
        (_fused("FusedGemm", ["x", "M", "b"], transB=1, activation="Relu"), ["Gemm", "Relu"]),
        (
            _fused("FusedGemm", ["x", "M", "b"], transB=1, alpha=2.0, activation="LeakyRelu", activation_alpha=0.3),
            ["Gemm", "LeakyRelu"],
        ),
        (_fused("FusedConv", ["image", "K"], activation="Tanh", pads=[1, 1, 1, 1]), ["Conv", "Tanh"]),
        (
            _fused("FusedConv", ["image", "K", "k", "image"], activation="Relu", pads=[1, 1, 1, 1]),
            ["Conv", "Add", "Relu"],
        ),
        (
            _fused("FusedConv", ["image", "K"], activation="HardSigmoid", activation_params=[0.3, 0.4]),
            ["Conv", "HardSigmoid"],
        ),
    ],
)
def test_what_the_optimizer_fused_is_split(node: NodeProto, op_types: list[str] | None) -> None:
    weights = {
        "M": normal(16, 16),
        "S": normal(2, 8, 16),
        "b": normal(16),
        "K": normal(3, 3, 3, 3),
        "k": normal(3),
    }
    shape = {"image": (2, 3, 8, 8)} if "image" in node.input else {"x": (16, 16)}
    used = {name: weight for name, weight in weights.items() if name in node.input}
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = graph([node], shape, {"y": None}, used, opset_imports=imports)
    split, modified = applied(split_fused.apply, model)
    assert modified == (op_types is not None)
    if op_types is None:
        return
    split, _ = applied(compute_constants.apply, split)
    assert [node.op_type for node in split.graph.node] == op_types
    assert split.graph.node[0].name == "work"
    feed = {name: normal(*dims) for name, dims in shape.items()}
    expected, actual = (run(opened(candidate), feed)["y"] for candidate in (model, split))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
