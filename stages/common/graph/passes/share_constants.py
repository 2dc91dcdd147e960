"""Weights that several graphs compute, such as both branches of an If: stored once, in the main graph.

ONNX Runtime reads a weight of an outer graph slightly slower than one of the body, and computes constants at load
anyway, so this is not for the float model; an INT8 model has to store the weight, and stores it once.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.passes.compute_constants import computed_weights, graphs_of, store
from stages.common.graph.walk import remove_unused


def apply(model: ir.Model) -> PassResult:
    """Turn equal weights computed in several graphs into one initializer of the main graph."""
    names = Names(model)
    modified = False
    for array, alike in computed_weights(model):
        if len(graphs_of(alike)) > 1:
            store(model.graph, array, alike, names, names.fresh(alike[0].name or ""))
            modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)
