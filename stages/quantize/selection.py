"""Which nodes with a weight are quantized, and how, by the params op_types, exclude_nodes and nodes."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from stages.common.base.errors import StageError
from stages.common.base.params import Quantize
from stages.common.graph.weights import WeightedNode
from stages.quantize import methods
from stages.quantize.methods import Assignment
from stages.quantize.outcome import NodeOutcome, kept

_BLOCKED_LAYOUT = "com.microsoft.nchwc."

_NOT_BY_DEFAULT = {
    ("dynamic", "Conv"): "slower in INT8 with dynamic ranges; use quantize.method static, or name Conv in "
    "quantize.op_types"
}
"""Why a node that a method can quantize stays float unless the params name its operator, by method and operator."""


def select(nodes: Sequence[WeightedNode], params: Quantize) -> tuple[list[Assignment], dict[str, NodeOutcome]]:
    """Split `nodes` into those to quantize, with their params, and outcomes by name for the rest.

    Raises:
        StageError: the method does not support an operator type, or a pattern matches no node.
    """
    names = [node.name for node in nodes]
    _check_op_types(params.op_types or (), methods.op_types(params.method), params.method)
    excluded = _matched("exclude_nodes", params.exclude_nodes, names)
    overridden = _matched("nodes", params.nodes, names)
    selected, outcomes = [], {}
    for node in nodes:
        overrides: dict[str, Any] = {}
        for pattern in overridden.get(node.name, ()):
            overrides |= params.nodes[pattern].model_dump(exclude_none=True)
        if node.name in excluded:
            outcomes[node.name] = kept(f"matches {excluded[node.name][0]!r} of quantize.exclude_nodes")
        elif overrides.get("method") == "float":
            outcomes[node.name] = kept(f"matches {overridden[node.name][-1]!r} of quantize.nodes, which keeps it float")
        elif reason := _reason(node, params.model_copy(update=overrides), "method" in overrides):
            outcomes[node.name] = kept(reason)
        else:
            selected.append(Assignment(node, params.model_copy(update=overrides)))
    return selected, outcomes


def matching(pattern: str, names: Collection[str]) -> set[str]:
    """The names that a pattern matches: an exact name matches itself only, anything else is a glob."""
    return {pattern} if pattern in names else {name for name in names if fnmatchcase(name, pattern)}


def _reason(node: WeightedNode, params: Quantize, chosen: bool) -> str:
    """Why a node stays float with these params; empty if it is quantized. `chosen`: quantize.nodes sets its method."""
    if node.op_type.startswith(_BLOCKED_LAYOUT):
        return "ONNX Runtime's optimizer changed its layout for one kind of CPU; quantize the original model"
    if node.op_type not in methods.op_types(params.method):
        return f"quantize.method {params.method} does not quantize {node.op_type}"
    if chosen:
        return ""
    if params.op_types is not None and node.op_type not in params.op_types:
        return "not in quantize.op_types"
    return "" if params.op_types is not None else _NOT_BY_DEFAULT.get((params.method, node.op_type), "")


def _check_op_types(op_types: Iterable[str], known: frozenset[str], method: str) -> None:
    for op_type in op_types:
        if op_type not in known:
            raise StageError(
                f"quantize.op_types names {op_type!r}, which quantize.method {method} does not quantize. "
                f"{_near(op_type, known, 'It quantizes')}"
            )


def _matched(key: str, patterns: Iterable[str], names: Sequence[str]) -> dict[str, list[str]]:
    """The names that the patterns of a key match, each with its matching patterns in order.

    Raises:
        StageError: a pattern matches no node.
    """
    by_name: dict[str, list[str]] = {}
    for pattern in patterns:
        matched = matching(pattern, names)
        if not matched:
            raise StageError(
                f"quantize.{key} names {pattern!r}, which matches no node with a weight. "
                f"{_near(pattern, names, 'Such nodes are')}"
            )
        for name in matched:
            by_name.setdefault(name, []).append(pattern)
    return by_name


def _near(wrong: str, known: Iterable[str], introduction: str) -> str:
    ordered = list(dict.fromkeys(sorted(known)))
    near = difflib.get_close_matches(wrong, ordered, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(repr(name) for name in near)}?"
    shown = ", ".join(repr(name) for name in ordered[:8])
    return f"{introduction} {shown}{' and more (metrics/details/nodes.csv lists all)' if len(ordered) > 8 else ''}."
