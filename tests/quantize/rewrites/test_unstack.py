"""Tensors that are cut up completely are split by one Split: the same bits."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from stages.quantize.rewrites import unstack
from tests.onnx_models import applied, opened
from tests.quantize.nets import feeds, net, node


def cut_up(dims: list[int], axes: list[int], *, reshaped: bool, missing: int = 0, wide: bool = False) -> ModelProto:
    """A tensor cut into pieces of length 1 along `axes`, except for `missing` pieces; each is negated or reshaped."""
    nodes, constants, outputs = [], {}, {}
    places = list(product(*(range(dims[axis]) for axis in axes)))
    rest = [size for axis, size in enumerate(dims) if axis not in axes]
    constants["shape"] = np.array([1, *rest], np.int64)
    for number, place in enumerate(places[: len(places) - missing]):
        bounds = {"start": place, "end": [at + 1 + wide for at in place], "axes": axes, "steps": [1] * len(axes)}
        for what, values in bounds.items():
            constants[f"{what}{number}"] = np.array(values, np.int64)
        nodes.append(node("Slice", "x " + " ".join(f"{what}{number}" for what in bounds), f"s{number}"))
        nodes.append(node(*("Reshape", f"s{number} shape") if reshaped else ("Abs", f"s{number}"), f"r{number}"))
        nodes.append(node("Neg", f"r{number}", f"y{number}"))
        outputs[f"y{number}"] = [1, *rest] if reshaped else [1 if i in axes else size for i, size in enumerate(dims)]
    return net(nodes, {"x": dims}, outputs, constants)


@given(dims=st.lists(st.integers(1, 4), min_size=3, max_size=4), reshaped=st.booleans(), data=st.data())
@settings(max_examples=30, deadline=None)
def test_the_same_bits(dims: list[int], reshaped: bool, data: st.DataObject) -> None:
    axes = data.draw(st.permutations(range(len(dims))))[:2]
    model = cut_up(dims, axes, reshaped=reshaped)
    rewritten, modified = applied(unstack.apply, model)
    assert modified == all(dims[axis] > 1 for axis in axes)  # ONNX Runtime handles cuts along one axis itself
    if modified:
        left = Counter(node.op_type for node in rewritten.graph.node)
        assert (left["Slice"], left["Split"], left["Reshape"]) == (0, 1, 1)
    for feed in feeds(model, count=2):
        for before, after in zip(opened(model).run(None, feed), opened(rewritten).run(None, feed), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("missing", "wide"), [(1, False), (0, True)])
def test_other_cuts_stay(missing: int, wide: bool) -> None:
    assert not applied(unstack.apply, cut_up([1, 3, 5, 3], [1, 3], reshaped=True, missing=missing, wide=wide))[1]
