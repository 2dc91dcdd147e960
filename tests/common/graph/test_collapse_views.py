"""Chains of views become one Reshape or nothing, and the answers stay the same bits."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from stages.common.graph.passes import collapse_views
from stages.common.model import sessions
from stages.common.model.ir_conversion import from_proto
from tests.quantize import nets


def collapsed(model: ModelProto) -> tuple[Counter[str], list[np.ndarray], list[np.ndarray], bool]:
    """The operators left, and the outputs before and after."""
    source = from_proto(model)
    result = collapse_views.apply(source.clone())
    feed = nets.feeds(model, count=1)[0]
    before, after = (
        sessions.run(sessions.open_session(net, name="net"), feed, name="net") for net in (source, result.model)
    )
    return Counter(node.op_type for node in result.model.graph), before, after, result.modified


def chain(*nodes: tuple[str, dict[str, object]], shape: tuple[int | str, ...]) -> ModelProto:
    """A Relu, views one after the other, and a Neg."""
    listed = [nets.node("Relu", "x", "v0")]
    for number, (op_type, attributes) in enumerate(nodes):
        listed.append(nets.node(op_type, f"v{number}", f"v{number + 1}", **attributes))
    listed.append(nets.node("Neg", f"v{len(nodes)}", "y"))
    model = nets.net(listed, {"x": shape}, {"y": []}, {}, opset=11)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def test_a_chain_becomes_one_operator() -> None:
    model = chain(
        ("Unsqueeze", {"axes": [0]}), ("Transpose", {"perm": [1, 0, 2]}), ("Squeeze", {"axes": [1]}),
        ("Unsqueeze", {"axes": [2]}), shape=(4, 6),
    )  # fmt: skip
    left, before, after, modified = collapsed(model)
    assert modified
    assert left.total() == 3  # Relu, a view, Neg
    np.testing.assert_array_equal(before[0], after[0])


def test_a_chain_into_another_shape_becomes_one_reshape() -> None:
    model = chain(("Unsqueeze", {"axes": [0]}), ("Transpose", {"perm": [1, 2, 0]}), shape=(4, 6))
    left, before, after, _ = collapsed(model)
    assert left == Counter(["Relu", "Reshape", "Neg"])
    np.testing.assert_array_equal(before[0], after[0])


def test_a_chain_that_ends_as_it_began_goes() -> None:
    model = chain(("Unsqueeze", {"axes": [0]}), ("Squeeze", {"axes": [0]}), shape=(2, 3, 4))
    left, before, after, _ = collapsed(model)
    assert left == Counter(["Relu", "Neg"])
    np.testing.assert_array_equal(before[0], after[0])


@pytest.mark.parametrize(
    "model",
    [
        chain(("Transpose", {"perm": [1, 0, 2]}), ("Transpose", {"perm": [0, 2, 1]}), shape=(2, 3, 4)),
        chain(("Unsqueeze", {"axes": [0]}), ("Transpose", {"perm": [1, 0, 2]}), shape=("N", 6)),
    ],
    ids=["values move", "a size is open"],
)
def test_what_moves_values_or_has_no_fixed_shape_stays(model: ModelProto) -> None:
    assert not collapsed(model)[3]


@given(
    st.permutations(range(4)),
    st.permutations(range(4)),
    st.lists(st.sampled_from([1, 1, 2, 3]), min_size=4, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_any_transposes_keep_the_answers(first: list[int], second: list[int], sizes: list[int]) -> None:
    model = chain(("Transpose", {"perm": first}), ("Transpose", {"perm": second}), shape=tuple(sizes))
    _, before, after, _ = collapsed(model)
    np.testing.assert_array_equal(before[0], after[0])
