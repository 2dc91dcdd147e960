"""Names for nodes: without one a node cannot be excluded, and with that of another both would be."""

from onnx import ModelProto

from stages.quantize.graphs import Names, all_nodes, copy, scopes


def name_nodes(model: ModelProto) -> tuple[ModelProto, bool]:
    """Name unnamed nodes `<op_type>_<number>`; of nodes of one name all but the first get a number."""
    given = [node.name for node in all_nodes(model)]
    if all(given) and len(set(given)) == len(given):
        return model, False
    named = copy(model)
    fresh = Names(named)
    seen: set[str] = set()
    for scope in scopes(named):
        for number, node in enumerate(scope.graph.node):
            if not node.name or node.name in seen:
                node.name = fresh.fresh(node.name or f"{node.op_type}_{number}")
            seen.add(node.name)
    return named, True
