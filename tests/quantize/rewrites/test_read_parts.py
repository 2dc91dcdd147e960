"""Slices of a Concat that equal its inputs read them: the same bits; other slices stay."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from stages.quantize.rewrites import read_parts
from tests.onnx_models import applied, opened
from tests.quantize.nets import feeds, net, node


def cut(sizes: list[int], bounds: list[tuple[int, int]], axis: int = -1, cut_axis: int = -1) -> ModelProto:
    """Parts concatenated along an axis, [2, 4, sum of sizes], and sliced."""
    total, inputs = sum(sizes), {f"x{number}": [2, 4, size] for number, size in enumerate(sizes)}
    nodes = [node("Concat", " ".join(inputs), "whole", axis=axis)]
    constants = {"axis": np.array([cut_axis], np.int64)}
    outputs = {}
    for number, (start, end) in enumerate(bounds):
        constants |= {f"start{number}": np.array([start], np.int64), f"end{number}": np.array([end], np.int64)}
        nodes.append(node("Slice", f"whole start{number} end{number} axis", f"s{number}"))
        nodes.append(node("Neg", f"s{number}", f"y{number}"))
        outputs[f"y{number}"] = [2, 4, len(range(*slice(start, end).indices(total)))] if cut_axis % 3 == 2 else [2]
    model = net(nodes, inputs, outputs, constants)
    if cut_axis % 3 != 2:
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
    return model


def same(model: ModelProto, rewritten: ModelProto) -> None:
    for feed in feeds(model, count=2):
        for before, after in zip(opened(model).run(None, feed), opened(rewritten).run(None, feed), strict=True):
            np.testing.assert_array_equal(before, after)


@given(
    sizes=st.lists(st.integers(1, 3), min_size=2, max_size=3), axis=st.sampled_from([-1, 2]),
    cut_axis=st.sampled_from([-1, 2]), data=st.data(),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_the_same_bits(sizes: list[int], axis: int, cut_axis: int, data: st.DataObject) -> None:
    total = sum(sizes)
    bound = st.integers(0, total).flatmap(lambda start: st.tuples(st.just(start), st.integers(start, total)))
    bounds = data.draw(st.lists(bound, min_size=1, max_size=3))
    model = cut(sizes, bounds, axis, cut_axis)
    rewritten, modified = applied(read_parts.apply, model)
    ends = np.cumsum(sizes)
    parts = set(zip((ends - sizes).tolist(), ends.tolist(), strict=True))
    assert modified == any(bound in parts for bound in bounds)
    left = Counter(node.op_type for node in rewritten.graph.node)
    assert left["Slice"] == sum(bound not in parts for bound in bounds)
    same(model, rewritten)


def test_the_end_may_be_open_and_bounds_negative() -> None:
    model = cut([2, 3], [(2, 2**31 - 1), (-5, -3)])
    rewritten, modified = applied(read_parts.apply, model)
    assert modified and [node.op_type for node in rewritten.graph.node] == ["Neg", "Neg"]
    same(model, rewritten)


def test_a_cut_along_another_axis_stays() -> None:
    assert not applied(read_parts.apply, cut([2, 2], [(0, 2)], cut_axis=1))[1]


@pytest.mark.parametrize(("sizes", "kept"), [([2, 3], 0), ([1, 4], 1)])
def test_split(sizes: list[int], kept: int) -> None:
    concat, split = node("Concat", "x0 x1", "whole", axis=1), node("Split", "whole sizes", "s0", axis=-1)
    split.output.append("s1")
    model = net(
        [concat, split, node("Neg", "s0", "y0"), node("Neg", "s1", "y1")], {"x0": [4, 2], "x1": [4, 3]},
        {"y0": [4, sizes[0]], "y1": [4, sizes[1]]}, {"sizes": np.array(sizes, np.int64)},
    )  # fmt: skip
    rewritten, _ = applied(read_parts.apply, model)
    assert Counter(node.op_type for node in rewritten.graph.node)["Split"] == kept
    same(model, rewritten)
