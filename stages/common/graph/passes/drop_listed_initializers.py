"""Initializers that are also inputs, as IR versions below 4 required."""

import onnx_ir as ir
from onnx_ir.passes import PassResult
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

CONSTANT_SINCE = 4
"""Since this IR version an initializer need not be an input, and one that is can be overridden."""


def apply(model: ir.Model) -> PassResult:
    """Remove initializers from the graph's inputs, so that they are constants.

    Below IR version 4 they are constants anyway. Since then the caller can override those that are inputs: if only some
    are, that is on purpose (adapters) and they stay; if all are, it is a habit of old exporters.
    """
    listed = {value for value in model.graph.inputs if value.is_initializer()}
    constants = set(model.graph.initializers.values())
    if not listed or (model.ir_version >= CONSTANT_SINCE and listed != constants):
        return PassResult(model, modified=False)
    model.ir_version = max(model.ir_version, CONSTANT_SINCE)
    return RemoveInitializersFromInputsPass()(model)
