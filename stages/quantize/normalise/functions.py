"""Local functions: their bodies, weights included, are put in place of the nodes that call them."""

import onnx.inliner
from onnx import ModelProto


def inline(model: ModelProto) -> tuple[ModelProto, bool]:
    """Inline every local function of the model."""
    if not model.functions:
        return model, False
    inlined: ModelProto = onnx.inliner.inline_local_functions(model)
    return inlined, True
