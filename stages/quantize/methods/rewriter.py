"""Replacing nodes of a model by quantized ones: what the rules of every operator share."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper
from tqdm import tqdm

from stages.common.base.params import Quantize
from stages.common.model import model_file
from stages.quantize import graphs, linear
from stages.quantize.decision import Decision, kept
from stages.quantize.graphs import Names, Scope
from stages.quantize.linear import Quantized

MICROSOFT = "com.microsoft"

_WORKERS = frozenset({"ConvInteger", "MatMulInteger"})


class KeepFloatError(Exception):
    """The node stays as it is; `str()` is the reason."""


@dataclass(frozen=True)
class Constant:
    """A constant: its name and its values."""

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class Activation:
    """A quantized activation: the names of its values, scale and zero point."""

    values: str
    scale: str
    zero_point: str


Rule = Callable[["Site"], str]
"""Emits the quantized form of a node at a site, or raises `KeepFloatError`; returns how, e.g. `QInt8 per channel`."""


class Rewriter:
    """Replaces nodes of one model in place, and remembers what they share: names, stored weights, activations."""

    def __init__(self, model: ModelProto, params: Quantize) -> None:
        self.model = model
        self.params = params
        self.names = Names(model)
        self.replaced: set[str] = set()
        self.domains: set[str] = set()
        self.activations: dict[tuple[str, str], Activation] = {}
        self.stored: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def rewrite(self, rules: dict[str, Rule]) -> dict[str, Decision]:
        """Apply the rule of each node named in `rules`, in every graph."""
        decisions = {}
        progress = tqdm(total=len(rules), desc="Quantize", unit=" nodes", disable=None, leave=False)
        # Inner graphs first: the outer node that holds them is copied when its own graph is rebuilt.
        for scope in reversed(graphs.scopes(self.model)):
            if not any(node.name in rules for node in scope.graph.node):
                continue
            rebuilt = []
            for node in scope.graph.node:
                if node.name not in rules:
                    rebuilt.append(node)
                    continue
                site = Site(self, scope, node)
                decisions[node.name] = site.decide(rules[node.name])
                progress.update()
                rebuilt.extend(site.nodes if decisions[node.name].quantized else [node])
            graphs.replace_nodes(scope.graph, rebuilt)
        progress.close()
        graphs.remove_unused_initializers(self.model, self.replaced)
        for domain in sorted(self.domains):
            if graphs.opset(self.model, domain) is None:
                self.model.opset_import.append(helper.make_opsetid(domain, 1))
        return decisions


class Site:
    """One node that is being replaced: what its rule asks, and the nodes that it emits in place of it."""

    def __init__(self, rewriter: Rewriter, scope: Scope, node: NodeProto) -> None:
        self.node = node
        self.nodes: list[NodeProto] = []
        self._rewriter = rewriter
        self._scope = scope
        self._sqnr: list[float] = []

    @property
    def params(self) -> Quantize:
        """The section `quantize` of the params."""
        return self._rewriter.params

    def decide(self, rule: Rule) -> Decision:
        """Apply `rule`."""
        try:
            how = rule(self)
        except KeepFloatError as error:
            return kept(str(error))
        finite = [value for value in self._sqnr if np.isfinite(value)]
        return Decision(quantized=True, how=how, sqnr_db=min(finite, default=None))

    def input(self, index: int) -> str:
        """The name of an input; empty where it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def constant(self, index: int) -> Constant | None:
        """The constant at an input, or None where there is none."""
        found = self._scope.constant(self.input(index)) if self.input(index) else None
        return Constant(found.name, model_file.array(found)) if found else None

    def weight(self, index: int) -> Constant:
        """The weight at an input.

        Raises:
            KeepFloatError: it is no constant, not float32, empty, or not finite.
        """
        found = self.constant(index)
        if found is None and self._scope.default(self.input(index)):
            raise KeepFloatError("its weight is an input with a default, which a caller may override")
        if found is None:
            raise KeepFloatError("its weight is computed while the model runs")
        if found.values.dtype != np.float32:
            raise KeepFloatError(f"its weight is {found.values.dtype}; ONNX Runtime's INT8 kernels take float32 only")
        if found.values.size == 0:
            raise KeepFloatError("its weight is empty: INT8 kernels return uninitialised memory for it")
        if not np.isfinite(found.values).all():
            raise KeepFloatError("its weight has NaN or infinity in it, which has no INT8 form")
        return found

    def emit(self, op_type: str, inputs: Iterable[str], stem: str, **attributes: object) -> str:
        """Emit a node of one output; returns the name of the output."""
        output = self._rewriter.names.fresh(stem)
        self.emit_last(op_type, inputs, [output], "", **attributes)
        return output

    def emit_last(
        self, op_type: str, inputs: Iterable[str], outputs: Iterable[str], domain: str = "", **attributes: object
    ) -> None:
        """Emit a node with the outputs given, e.g. those of the node that is replaced."""
        # The node that does the work of the one that is replaced keeps its name: profiles and reports speak of it.
        works = domain == MICROSOFT or op_type in _WORKERS
        name = self.node.name if works else self._rewriter.names.fresh(f"{self.node.name}_{op_type}")
        self.nodes.append(helper.make_node(op_type, list(inputs), list(outputs), name, domain=domain, **attributes))
        if domain:
            self._rewriter.domains.add(domain)

    def emit_like(self, op_type: str, inputs: Iterable[str], stem: str) -> str:
        """As `emit`, with the attributes of the node that is replaced."""
        output = self.emit(op_type, inputs, stem)
        self.nodes[-1].attribute.extend(self.node.attribute)
        return output

    def replace(self, op_type: str, inputs: Iterable[str], skip: tuple[str, ...] = ()) -> None:
        """Emit a node of ONNX Runtime's own domain with the outputs and attributes of the one that is replaced."""
        self.emit_last(op_type, inputs, self.node.output, MICROSOFT)
        self.nodes[-1].attribute.extend(each for each in self.node.attribute if each.name not in skip)

    def fresh_name(self, stem: str) -> str:
        """A name for a value that nothing has yet."""
        return self._rewriter.names.fresh(stem)

    def activation(self, name: str) -> Activation:
        """The 8-bit form of an activation; computed once in a graph, however many nodes use it."""
        known = self._rewriter.activations
        key = (self._scope.path, name)
        if key not in known:
            fresh = self._rewriter.names.fresh
            known[key] = Activation(fresh(f"{name}_int8"), fresh(f"{name}_int8_scale"), fresh(f"{name}_int8_zero"))
            made = known[key]
            self.emit_last("DynamicQuantizeLinear", [name], [made.values, made.scale, made.zero_point])
        return known[key]

    def quantized(
        self, weight: Constant, weight_type: str, channel_axes: tuple[int, ...] = (), reduce_range: bool | None = None
    ) -> Quantized:
        """`weight` in 8 bits; its float values leave the model once nothing uses them."""
        reduce = self.params.reduce_range if reduce_range is None else reduce_range
        result = linear.quantize(weight.values, weight_type, channel_axes, reduce)
        self.replace_weight(weight, result.dequantized())
        return result

    def replace_weight(self, weight: Constant, approximation: np.ndarray) -> None:
        """Take note that `approximation` stands for `weight` now: its float values leave once nothing uses them."""
        self._sqnr.append(linear.sqnr_db(weight.values, approximation))
        self._rewriter.replaced.add(weight.name)

    def store(self, weight: Constant, suffix: str, values: np.ndarray) -> str:
        """Store a constant made of `weight` in the main graph, which every graph sees; equal ones are stored once."""
        rewriter = self._rewriter
        key = (str(values.dtype), values.shape, hashlib.sha256(np.ascontiguousarray(values).data).digest())
        if key not in rewriter.stored:
            rewriter.stored[key] = rewriter.names.fresh(f"{weight.name}_{suffix}")
            rewriter.model.graph.initializer.append(numpy_helper.from_array(values, rewriter.stored[key]))
        return rewriter.stored[key]
