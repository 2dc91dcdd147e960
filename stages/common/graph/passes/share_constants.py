"""Weights that several graphs compute alike, as both branches of an If do: stored once, in the graph that all see.

ONNX Runtime reads a weight of an outer graph a little slower than one of the body's own, and computes constants at load
anyway. So this is not for the float model; an INT8 model has to store the weight, and stores it once.
"""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.passes.compute_constants import computed_weights, graphs_of, store
from stages.common.graph.walk import remove_unused


def apply(model: ir.Model) -> PassResult:
    """Turn weights that several graphs compute alike into one initializer of the main graph."""
    names = Names(model)
    modified = False
    for array, alike in computed_weights(model):
        if len(graphs_of(alike)) > 1:
            store(model.graph, array, alike, names)
            modified = True
    if modified:
        remove_unused(model)
    return PassResult(model, modified)
