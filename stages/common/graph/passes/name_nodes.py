"""Unique names for nodes, by which they can be excluded."""

import onnx_ir as ir
from onnx_ir.passes import PassResult

from stages.common.graph.names import Names
from stages.common.graph.walk import paths


def apply(model: ir.Model) -> PassResult:
    """Name unnamed nodes `<op_type>_<number>`; of nodes with the same name, all but the first get a number."""
    nodes = [(number, node) for graph in paths(model) for number, node in enumerate(graph)]
    names = Names(model)
    seen: set[str] = set()
    modified = False
    for number, node in nodes:
        if not node.name or node.name in seen:
            node.name = names.fresh(node.name or f"{node.op_type}_{number}")
            modified = True
        seen.add(node.name)
    return PassResult(model, modified)
