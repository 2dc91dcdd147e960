"""Which of the nodes with a weight are to be quantized: op_types and exclude_nodes of the params."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from stages.common.base.errors import StageError
from stages.common.base.params import Quantize
from stages.common.graph.weights import WeightedNode
from stages.quantize.methods import Scope
from stages.quantize.outcome import NodeOutcome, kept

_BLOCKED_LAYOUT = "com.microsoft.nchwc."


def select(
    nodes: Sequence[WeightedNode], method: Scope, params: Quantize
) -> tuple[list[WeightedNode], dict[str, NodeOutcome]]:
    """Split `nodes` into those to quantize, and outcomes for the rest by name.

    Raises:
        StageError: a type of operator that the method does not know, or a pattern that matches no node.
    """
    _check_op_types(params.op_types or (), method.OP_TYPES, params.method)
    excluded = _excluded(params.exclude_nodes, [node.name for node in nodes])
    selected, outcomes = [], {}
    for node in nodes:
        reason = _reason(node, method, params, excluded)
        if reason:
            outcomes[node.name] = kept(reason)
        else:
            selected.append(node)
    return selected, outcomes


def matching(pattern: str, names: Collection[str]) -> set[str]:
    """The names that a pattern of the params means: the one that it is, whatever is in it; else it is a glob."""
    return {pattern} if pattern in names else {name for name in names if fnmatchcase(name, pattern)}


def _reason(node: WeightedNode, method: Scope, params: Quantize, excluded: Mapping[str, str]) -> str:
    if node.op_type.startswith(_BLOCKED_LAYOUT):
        return "ONNX Runtime's optimiser laid it out for one kind of CPU; give the model as it was before that"
    if node.op_type not in method.OP_TYPES:
        return f"quantize.method {params.method} does not quantize {node.op_type}"
    if params.op_types is not None and node.op_type not in params.op_types:
        return "not in quantize.op_types"
    if params.op_types is None and node.op_type not in method.BY_DEFAULT:
        return method.WHY_NOT[node.op_type]
    return f"matches {excluded[node.name]!r} of quantize.exclude_nodes" if node.name in excluded else ""


def _check_op_types(op_types: Iterable[str], known: frozenset[str], method: str) -> None:
    for op_type in op_types:
        if op_type not in known:
            raise StageError(
                f"quantize.op_types names {op_type!r}, which quantize.method {method} does not quantize. "
                f"{_near(op_type, known, 'It quantizes')}"
            )


def _excluded(patterns: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """The names that patterns exclude, each with the first that does.

    Raises:
        StageError: a pattern matches no node.
    """
    excluded: dict[str, str] = {}
    for pattern in patterns:
        matched = matching(pattern, names)
        if not matched:
            raise StageError(
                f"quantize.exclude_nodes names {pattern!r}, which matches no node with a weight. "
                f"{_near(pattern, names, 'Such nodes are')}"
            )
        excluded |= {name: pattern for name in matched if name not in excluded}
    return excluded


def _near(wrong: str, known: Iterable[str], introduction: str) -> str:
    ordered = list(dict.fromkeys(sorted(known)))
    near = difflib.get_close_matches(wrong, ordered, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(repr(name) for name in near)}?"
    shown = ", ".join(repr(name) for name in ordered[:8])
    return f"{introduction} {shown}{' and more (metrics/details/nodes.csv lists all)' if len(ordered) > 8 else ''}."
