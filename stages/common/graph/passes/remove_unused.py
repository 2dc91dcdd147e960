"""Weights and nodes that nothing uses: removed from the float file, so that INT8 takes no credit for dropping them."""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.walk import remove_unused


def apply(model: ir.Model) -> PassResult:
    """Remove nodes and initializers that lead to no output, in every graph."""
    before = _count(model)
    remove_unused(model)
    return PassResult(model, modified=_count(model) < before)


def _count(model: ir.Model) -> int:
    return sum(len(graph) + len(graph.initializers) for graph in (model.graph, *model.graph.subgraphs()))
