"""Replacing nodes of a model by quantized ones: what the rewrites of every operator share."""

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
    constant,
    default,
    input_of,
    name_of,
    paths,
    remove_unused,
    replace,
)
from stages.quantize import linear, portable
from stages.quantize.eight_bits import quantize_weight
from stages.quantize.linear import Quantized
from stages.quantize.outcome import NodeOutcome, kept

_WORKERS = frozenset({"ConvInteger", "MatMulInteger"})


class KeepFloatError(Exception):
    """The node stays as it is; `str()` is the reason. Raised before anything is emitted for the node."""


@dataclass(frozen=True)
class Constant:
    """A constant: its name and its values."""

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class Activation:
    """A quantized activation."""

    values: ir.Value
    scale: ir.Value
    zero_point: ir.Value


Made = TypeVar("Made")

Rewrite = Callable[["Site"], str]
"""Emits the quantized form of a node at a site, or raises `KeepFloatError`; returns how, e.g. `QInt8 per channel`."""


class Rewriter:
    """Replaces nodes of one model in place, and remembers what they share: names, stored weights, activations."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.names = Names(model)
        self.shared: dict[tuple[ir.Graph, ir.Value | None, str], tuple[Any, tuple[str, ...]]] = {}
        self.stored: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """How many dimensions the values of the main graph have, by name, as far as they can be inferred."""
        return {name_of(value): len(dims) for value, dims in inferred(self.model).items()}

    def rewrite(self, rewrites: Mapping[str, tuple[Rewrite, Quantize]]) -> dict[str, NodeOutcome]:
        """Apply the rewrite of each node named, by its own params, in every graph; then remove what is unused."""
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
        """Store a constant in the main graph, which every graph sees; equal ones are stored once."""
        values = np.ascontiguousarray(values).reshape(values.shape)
        key = (str(values.dtype), values.shape, hashlib.sha256(values.data).digest())
        if key not in self.stored:
            self.stored[key] = add_initializer(self.model.graph, self.names.fresh(stem), values)
        return self.stored[key]


class Site:
    """One node that is being replaced: what its rewrite asks, and the nodes that it emits in place of it."""

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
        """The version of the default domain."""
        return int(self._rewriter.model.opset_imports[""])

    def rank(self, value: ir.Value) -> int | None:
        """How many dimensions a value has; None where that is unknown."""
        return 2 if self.node.op_type == "Gemm" else self._rewriter.ranks.get(name_of(value))

    def rewritten(self, rewrite: Rewrite) -> NodeOutcome:
        """Apply `rewrite`."""
        try:
            how = rewrite(self)
        except KeepFloatError as error:
            return kept(str(error))
        becomes = [*self._shared, *(node.name or "" for node in self._nodes)]
        replace(self._replaced, self._nodes, self._outputs)
        return NodeOutcome(
            True, how, "", _least(self._sqnr), _least(self._full_sqnr), becomes=tuple(dict.fromkeys(becomes))
        )

    def input(self, index: int) -> ir.Value | None:
        """An input of the node; None where it is left out."""
        return input_of(self.node, index)

    def needed_input(self, index: int) -> ir.Value:
        """An input that the operator cannot do without."""
        value = self.input(index)
        assert value is not None, f"{self.node.op_type} without its input {index}"
        return value

    def constant(self, index: int) -> Constant | None:
        """The constant at an input, or None where there is none."""
        value = self.input(index)
        tensor = constant(value)
        return Constant(name_of(value), tensor.numpy()) if tensor is not None else None

    def weight(self, index: int) -> Constant:
        """The weight at an input.

        Raises:
            KeepFloatError: it is not constant, not float32, empty, or not finite.
        """
        weight = self.constant(index)
        if weight is None and default(self.input(index)) is not None:
            raise KeepFloatError("its weight is an input with a default, which a caller may override")
        if weight is None:
            raise KeepFloatError("its weight is computed while the model runs")
        if weight.values.dtype != np.float32:
            raise KeepFloatError(f"its weight is {weight.values.dtype}; ONNX Runtime's INT8 kernels take float32 only")
        if weight.values.size == 0:
            raise KeepFloatError("its weight is empty: INT8 kernels return uninitialised memory for it")
        if not np.isfinite(weight.values).all():
            raise KeepFloatError("its weight has NaN or infinity in it, which has no INT8 form")
        return weight

    def right_weight(self) -> Constant:
        """The weight of a product, which INT8 kernels take on the right only.

        Raises:
            KeepFloatError: as `weight`, or it is on the left.
        """
        if self.constant(1) is None and self.constant(0) is not None:
            raise KeepFloatError("its constant is on the left; INT8 kernels take it on the right only")
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
        """Emit a node, with attributes of another one beside those given.

        Returns:
            Its first output, named after `stem`; by default after the output of the node that is replaced.
        """
        # The node that does the work of the one that is replaced keeps its name: profiles and reports speak of it.
        works = domain == MICROSOFT or op_type in _WORKERS
        fresh = self._rewriter.names.fresh
        first = works and all(made.name != self.node.name for made in self._nodes)
        name = (self.node.name or "") if first else fresh(f"{self.node.name}_{op_type}")
        given = [*like, *ir.convenience.convert_attributes(attributes)]
        node = ir.Node(domain, op_type, list(inputs), given, name=name, num_outputs=outputs)
        for output in node.outputs:
            output.name = fresh(stem or f"{name_of(self.node.outputs[0])}_{op_type}")
        self._nodes.append(node)
        return node.outputs[0]

    def give(self, output: ir.Value) -> None:
        """Let the output that was emitted take the place of the node's only one."""
        self._outputs = [output]

    def replace(self, op_type: str, inputs: Sequence[ir.Value | None], skip: tuple[str, ...] = ()) -> None:
        """Emit a node of ONNX Runtime's own domain with the outputs and attributes of the one that is replaced."""
        like = [attribute for name, attribute in self.node.attributes.items() if name not in skip]
        self.emit(op_type, inputs, domain=MICROSOFT, like=like, outputs=len(self.node.outputs))
        for old, new in zip(self.node.outputs, self._nodes[-1].outputs, strict=True):
            new.name = old.name
        self._outputs = list(self._nodes[-1].outputs)

    def absorb(self, reader: ir.Node) -> None:
        """Replace the node that reads this one's output, too, and what it gives."""
        self._replaced.append(reader)

    def keep(self, inputs: Sequence[ir.Value | None]) -> None:
        """Keep the node, with other inputs."""
        old = self.node
        node = ir.Node(
            old.domain, old.op_type, inputs, list(old.attributes.values()), name=old.name, num_outputs=len(old.outputs)
        )
        self._nodes.append(node)
        for before, after in zip(old.outputs, node.outputs, strict=True):
            after.name = before.name
        self._outputs = list(node.outputs)

    def activation(self, value: ir.Value) -> Activation:
        """The 8-bit form of an activation; computed once in a graph, however many nodes use it."""
        return self.share(value, "activation", lambda: self._quantize(value))

    def _quantize(self, value: ir.Value) -> Activation:
        fresh = self._rewriter.names.fresh
        outputs = [ir.Value(name=fresh(f"{value.name}_int8{suffix}")) for suffix in ("", "_scale", "_zero")]
        label = fresh(f"{self.node.name}_DynamicQuantizeLinear")
        self._nodes.append(ir.node("DynamicQuantizeLinear", [value], outputs=outputs, name=label))
        return Activation(*outputs)

    def share(self, value: ir.Value | None, what: str, make: Callable[[], Made]) -> Made:
        """What is made of a value, or of none in particular, once in a graph, however many nodes use it."""
        shared, graph = self._rewriter.shared, self.node.graph
        assert graph is not None
        key = (graph, value, what)
        if key not in shared:
            before = len(self._nodes)
            made = make()
            shared[key] = (made, tuple(node.name or "" for node in self._nodes[before:]))
        made, names = shared[key]
        self._shared.extend(names)
        return cast(Made, made)

    def quantized(
        self,
        weight: Constant,
        weight_type: str,
        channel_axes: tuple[int, ...] = (),
        *,
        summed: portable.Summed = None,
        reduce_range: bool | None = None,
        least: np.ndarray | float = 0,
    ) -> Quantized:
        """`weight` in 8 bits, with its cost on record; see `quantize_weight`; params replace None."""
        reduce = self.params.reduce_range if reduce_range is None else reduce_range
        pairs = summed if self.params.portable else None
        made = quantize_weight(weight.values, weight_type, channel_axes, reduce_range=reduce, summed=pairs, least=least)
        self._sqnr.append(made.sqnr_db)
        self._full_sqnr += [] if made.full_range_sqnr_db is None else [made.full_range_sqnr_db]
        return made.quantized

    def record_loss(self, weight: np.ndarray, approximation: np.ndarray) -> None:
        """Take note that `approximation` stands for `weight` now."""
        self._sqnr.append(linear.sqnr_db(weight, approximation))

    def number(self, label: str, values: np.ndarray) -> ir.Value:
        """Store a constant that is made of no weight."""
        return self._rewriter.store(label, values)

    def transposed(self, matrix: np.ndarray) -> ir.Value | None:
        """A matrix as the transpose of one that is stored, such as an embedding that is the last layer, too."""
        kind, content = (str(matrix.dtype), matrix.T.shape), np.ascontiguousarray(matrix.T).data
        alike = {key[2]: value for key, value in self._rewriter.stored.items() if key[:2] == kind}
        twin = alike.get(hashlib.sha256(content).digest()) if alike and matrix.ndim == 2 else None
        return twin and self.emit("Transpose", [twin], perm=[1, 0])

    def store(self, weight: Constant, suffix: str, values: np.ndarray) -> ir.Value:
        """Store a constant made of `weight`."""
        return self._rewriter.store(f"{weight.name}_{suffix}", values)


def _least(ratios: list[float]) -> float | None:
    """The lowest of some ratios in dB; None where nothing was lost."""
    return min((ratio for ratio in ratios if np.isfinite(ratio)), default=None)
