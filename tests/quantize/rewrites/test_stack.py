"""Nested stacks are built with one Concat: the same bits."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from stages.quantize.rewrites import stack
from tests.onnx_models import applied, opened
from tests.quantize.nets import feeds, net, node


def stacked(part: list[int], inner: int, outer: int, axes: tuple[int, int], *, read: bool = False) -> ModelProto:
    """`outer` stacks of `inner` parts each, along a new axis each time; another node reads the first stack, too."""
    nodes, constants = [], {f"axis{level}": np.array([axis]) for level, axis in enumerate(axes)}
    inputs: dict[str, list[int]] = {}
    for group in range(outer):
        names = [f"x{group}_{number}" for number in range(inner)]
        inputs |= dict.fromkeys(names, part)
        nodes += [node("Unsqueeze", f"{name} axis0", f"{name}_u") for name in names]
        nodes.append(node("Concat", " ".join(f"{name}_u" for name in names), f"g{group}", axis=axes[0]))
        nodes.append(node("Unsqueeze", f"g{group} axis1", f"g{group}_u"))
    nodes.append(node("Concat", " ".join(f"g{group}_u" for group in range(outer)), "y", axis=axes[1]))
    shape = [*part]
    for axis, size in zip(axes, (inner, outer), strict=True):
        shape.insert(axis if axis >= 0 else axis + len(shape) + 1, size)
    outputs = {"y": shape}
    if read:
        nodes.append(node("Neg", "g0", "z"))
        outputs["z"] = shape[: axes[1]] + shape[axes[1] + 1 :]
    return net(nodes, inputs, outputs, constants)


@given(
    part=st.lists(st.integers(1, 3), min_size=1, max_size=3), inner=st.integers(2, 3), outer=st.integers(2, 3),
    data=st.data(),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_the_same_bits(part: list[int], inner: int, outer: int, data: st.DataObject) -> None:
    axes = data.draw(st.tuples(st.integers(-1, len(part)), st.integers(-1, len(part) + 1)))
    model = stacked(part, inner, outer, axes)
    rewritten, modified = applied(stack.apply, model)
    assert modified
    assert Counter(node.op_type for node in rewritten.graph.node) == {"Concat": 1, "Reshape": 1, "Transpose": 1}
    for feed in feeds(model, count=2):
        np.testing.assert_array_equal(*(opened(candidate).run(None, feed)[0] for candidate in (model, rewritten)))


def test_one_axis_alone_is_turned_where_others_are_one_wide() -> None:
    rewritten, _ = applied(stack.apply, stacked([1, 4], 2, 2, (1, 3)))
    (turned,) = (node for node in rewritten.graph.node if node.op_type == "Transpose")
    assert list(turned.attribute[0].ints) == [1, 2, 3, 0]  # a permutation that ONNX Runtime is fast at


def test_a_stack_that_is_read_elsewhere_stays() -> None:
    assert not applied(stack.apply, stacked([1, 4], 2, 2, (1, 3), read=True))[1]


@pytest.mark.parametrize("sizes", [([2, 3], [2, 4]), ([2, 2], [2, 2])], ids=["unequal parts", "one Concat"])
def test_others_stay(sizes: tuple[list[int], list[int]]) -> None:
    (rows, first), (_, second) = sizes
    model = net(
        [node("Concat", "a b", "y", axis=1)], {"a": [rows, first], "b": [rows, second]}, {"y": [rows, first + second]},
        {},
    )  # fmt: skip
    assert not applied(stack.apply, model)[1]
