"""Local functions: their bodies, weights included, replace the nodes that call them."""

import onnx_ir as ir
from onnx_ir.passes import PassResult
from onnx_ir.passes.common import InlinePass


def apply(model: ir.Model) -> PassResult:
    """Inline every local function of the model."""
    if not model.functions:
        return PassResult(model, modified=False)
    InlinePass()(model)
    return PassResult(model, modified=True)
