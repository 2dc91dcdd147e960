"""Replace nodes of a model by quantized ones: what the rewrites of all operators share."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import onnx_ir as ir
from tqdm import tqdm

from stages.common.base.params import Quantize
from stages.common.graph.names import Names
from stages.common.graph.shapes import inferred
from stages.common.graph.walk import (
    MICROSOFT,
    add_initializer,
    input_of,
    name_of,
    paths,
    remove_unused,
    replace,
)
from stages.quantize import linear, portable
from stages.quantize.eight_bits import quantize_weight
from stages.quantize.linear import Quantized
from stages.quantize.methods.constants import Constant, KeepFloatError, read, read_weight
from stages.quantize.outcome import NodeOutcome, kept

_WORKERS = frozenset({"ConvInteger", "MatMulInteger"})


@dataclass(frozen=True)
class Activation:
    """A quantized activation."""

    values: ir.Value
    scale: ir.Value
    zero_point: ir.Value


Shared = TypeVar("Shared")

Rewrite = Callable[["Site"], str]
"""Emits the quantized form of a node at a site, or raises `KeepFloatError`; returns how, e.g. `QInt8 per channel`."""


class Rewriter:
    """Replaces nodes of a model in place, and keeps what they share: names, stored weights, quantized activations."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.names = Names(model)
        self.shared: dict[tuple[ir.Graph, ir.Value | None, str], tuple[Any, tuple[str, ...]]] = {}
        self.stored: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The ranks of the values of the main graph by name, if shape inference finds them."""
        return {name_of(value): len(dims) for value, dims in inferred(self.model).items()}

    def rewrite(self, rewrites: Mapping[str, tuple[Rewrite, Quantize]]) -> dict[str, NodeOutcome]:
        """Apply the rewrite and the params given for each node name, in any graph; then remove what is unused.

        Returns:
            The outcomes by node name.
        """
        outcomes = {}
        nodes = [node for graph in paths(self.model) for node in graph if node.name in rewrites]
        for node in tqdm(nodes, desc="Quantize", unit=" nodes", disable=None, leave=False):
            assert node.name is not None
            rewrite, params = rewrites[node.name]
            outcomes[node.name] = Site(self, node, params).rewritten(rewrite)
        if outcomes:
            remove_unused(self.model)
        if any(node.domain == MICROSOFT for node in self.model.graph.all_nodes()):
            self.model.opset_imports.setdefault(MICROSOFT, 1)
        return outcomes

    def store(self, stem: str, values: np.ndarray) -> ir.Value:
        """Store a constant in the main graph, where every graph can read it; equal constants are stored once."""
        values = np.ascontiguousarray(values).reshape(values.shape)
        key = _content(values)
        if key not in self.stored:
            self.stored[key] = add_initializer(self.model.graph, self.names.fresh(stem), values)
        return self.stored[key]


class Site:
    """A node that is being replaced: what its rewrite reads, and the nodes that it emits instead."""

    def __init__(self, rewriter: Rewriter, node: ir.Node, params: Quantize) -> None:
        self.node = node
        self.params = params
        self._replaced = [node]
        self._rewriter = rewriter
        self._nodes: list[ir.Node] = []
        self._outputs: list[ir.Value] = []
        self._sqnr: list[float] = []
        self._full_sqnr: list[float] = []
        self._shared: list[str] = []

    @property
    def opset(self) -> int:
        """The opset version of the default domain."""
        return int(self._rewriter.model.opset_imports[""])

    def rank(self, value: ir.Value) -> int | None:
        """The rank of a value; None if it is unknown."""
        return 2 if self.node.op_type == "Gemm" else self._rewriter.ranks.get(name_of(value))

    def rewritten(self, rewrite: Rewrite) -> NodeOutcome:
        """Apply a rewrite, and return the outcome."""
        try:
            how = rewrite(self)
        except KeepFloatError as error:
            return kept(str(error))
        becomes = tuple(dict.fromkeys([*self._shared, *(node.name or "" for node in self._nodes)]))
        replace(self._replaced, self._nodes, self._outputs)
        return NodeOutcome(True, how, "", _least(self._sqnr), _least(self._full_sqnr), becomes)

    def input(self, index: int) -> ir.Value | None:
        """An input of the node; None if it is omitted."""
        return input_of(self.node, index)

    def needed_input(self, index: int) -> ir.Value:
        """An input that the operator requires."""
        value = self.input(index)
        assert value is not None, f"{self.node.op_type} without its input {index}"
        return value

    def constant(self, index: int) -> Constant | None:
        """The constant at an input; None if the input is not constant."""
        return read(self.input(index))

    def weight(self, index: int) -> Constant:
        """The weight at an input, or `KeepFloatError`: see `read_weight`."""
        return read_weight(self.input(index))

    def right_weight(self) -> Constant:
        """The weight of a product, which INT8 kernels only take on the right.

        Raises:
            KeepFloatError: as for `weight`, or the weight is on the left.
        """
        if self.constant(1) is None and self.constant(0) is not None:
            raise KeepFloatError("its weight is on the left; INT8 kernels take it only on the right")
        return self.weight(1)

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        stem: str = "",
        *,
        domain: str = "",
        like: Sequence[ir.Attr] = (),
        outputs: int = 1,
        **attributes: float | Sequence[int],
    ) -> ir.Value:
        """Emit a node, with the attributes `like` and `attributes`.

        Returns:
            Its first output, named after `stem`; by default after the output of the replaced node.
        """
        # The first node that does the work of the replaced node takes over its name, so that profiles show it.
        works = domain == MICROSOFT or op_type in _WORKERS
        fresh = self._rewriter.names.fresh
        first = works and all(emitted.name != self.node.name for emitted in self._nodes)
        name = (self.node.name or "") if first else fresh(f"{self.node.name}_{op_type}")
        all_attributes = [*like, *ir.convenience.convert_attributes(attributes)]
        node = ir.Node(domain, op_type, list(inputs), all_attributes, name=name, num_outputs=outputs)
        for output in node.outputs:
            output.name = fresh(stem or f"{name_of(self.node.outputs[0])}_{op_type}")
        self._nodes.append(node)
        return node.outputs[0]

    def finish(self, output: ir.Value) -> None:
        """Let an emitted value replace the node's only output."""
        self._outputs = [output]

    def replace(self, op_type: str, inputs: Sequence[ir.Value | None], skip: tuple[str, ...] = ()) -> None:
        """Emit a node of ONNX Runtime's own domain with the outputs and attributes of the replaced node."""
        like = [attribute for name, attribute in self.node.attributes.items() if name not in skip]
        self.emit(op_type, inputs, domain=MICROSOFT, like=like, outputs=len(self.node.outputs))
        self._outputs = list(self._nodes[-1].outputs)

    def absorb(self, reader: ir.Node) -> None:
        """Also replace the node that reads this node's output; the emitted value replaces that node's output."""
        self._replaced.append(reader)

    def keep(self, inputs: Sequence[ir.Value | None]) -> None:
        """Keep the node, but with other inputs."""
        old = self.node
        node = ir.Node(
            old.domain, old.op_type, inputs, list(old.attributes.values()), name=old.name, num_outputs=len(old.outputs)
        )
        self._nodes.append(node)
        self._outputs = list(node.outputs)

    def activation(self, value: ir.Value) -> Activation:
        """The 8-bit form of an activation, computed once per graph for all nodes that read it."""
        return self.share(value, "activation", lambda: self._quantize(value))

    def _quantize(self, value: ir.Value) -> Activation:
        fresh = self._rewriter.names.fresh
        outputs = [ir.Value(name=fresh(f"{value.name}_int8{suffix}")) for suffix in ("", "_scale", "_zero")]
        label = fresh(f"{self.node.name}_DynamicQuantizeLinear")
        self._nodes.append(ir.node("DynamicQuantizeLinear", [value], outputs=outputs, name=label))
        return Activation(*outputs)

    def share(self, value: ir.Value | None, kind: str, make: Callable[[], Shared]) -> Shared:
        """The result of `make`, which emits nodes, shared by all nodes of a graph that ask for this value and kind."""
        shared, graph = self._rewriter.shared, self.node.graph
        assert graph is not None
        key = (graph, value, kind)
        if key not in shared:
            before = len(self._nodes)
            shared[key] = (make(), tuple(node.name or "" for node in self._nodes[before:]))
        result, names = shared[key]
        self._shared.extend(names)
        return cast(Shared, result)

    def quantized(
        self,
        weight: Constant,
        weight_type: str,
        channel_axes: tuple[int, ...] = (),
        *,
        summed: portable.Summed = None,
        pairs: bool = True,
        reduce_range: bool | None = None,
        min_scale: np.ndarray | float = 0,
    ) -> Quantized:
        """Quantize a weight, and record its SQNR; see `quantize_weight`.

        Without the param `portable`, weights whose kernel adds pairs are rounded plainly, as ONNX Runtime does.
        `reduce_range` None uses the param.
        """
        reduce = self.params.reduce_range if reduce_range is None else reduce_range
        result = quantize_weight(
            weight.values,
            weight_type,
            channel_axes,
            reduce_range=reduce,
            summed=summed if self.params.portable or not pairs else None,
            pairs=pairs,
            min_scale=min_scale,
        )
        self._sqnr.append(result.sqnr_db)
        self._full_sqnr += [] if result.full_range_sqnr_db is None else [result.full_range_sqnr_db]
        return result.quantized

    def record_loss(self, weight: np.ndarray, approximation: np.ndarray) -> None:
        """Record the SQNR of a weight that is replaced by an approximation."""
        self._sqnr.append(linear.sqnr_db(weight, approximation))

    def number(self, label: str, values: np.ndarray) -> ir.Value:
        """Store a constant that does not come from a weight."""
        return self._rewriter.store(label, values)

    def store(self, weight: Constant, suffix: str, values: np.ndarray) -> ir.Value:
        """Store a constant derived from `weight`."""
        return self._rewriter.store(f"{weight.name}_{suffix}", values)

    def find(self, values: np.ndarray) -> ir.Value | None:
        """The stored constant that equals `values`; None if none was stored."""
        return self._rewriter.stored.get(_content(np.ascontiguousarray(values)))


def _content(values: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return str(values.dtype), values.shape, hashlib.sha256(values.data).digest()


def _least(ratios: list[float]) -> float | None:
    """The lowest of these SQNRs in dB; None if nothing was lost."""
    return min((ratio for ratio in ratios if np.isfinite(ratio)), default=None)
