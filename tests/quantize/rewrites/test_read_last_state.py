"""A recurrent layer with one step gives the same bits if its last state is read."""

from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto

from stages.common.graph.passes import collapse_views
from stages.quantize.rewrites import read_last_state
from tests.onnx_models import applied, opened
from tests.quantize.nets import feeds, net, node, normal

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(
    op_type: str = "LSTM", steps: int | str = 1, opset: int = 14, outputs: str = "Y", **attributes: object
) -> ModelProto:
    """A layer of 6 units whose states are squeezed and negated."""
    hidden, gates = 6, GATES[op_type]
    both = 2 if attributes.get("direction") == "bidirectional" else 1
    layer = node(op_type, "x W R", outputs.split(maxsplit=1)[0], hidden_size=hidden, **attributes)
    layer.output[:] = ["" if name == "-" else name for name in outputs.split()]
    squeeze = node("Squeeze", "Y axes" if opset >= 13 else "Y", "s", **({} if opset >= 13 else {"axes": [0]}))
    constants = {"W": normal(both, gates * hidden, 5), "R": normal(both, gates * hidden, hidden, seed=1)}
    if opset >= 13:
        constants["axes"] = np.array([0], np.int64)
    last = [node("Neg", "Y_h", "h")] if "Y_h" in outputs else []
    model = net(
        [layer, squeeze, node("Neg", "s", "y"), *last], {"x": [steps, 2, 5]}, {"y": []} | ({"h": []} if last else {}),
        constants, opset,
    )  # fmt: skip
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("opset", [11, 14])
@pytest.mark.parametrize("outputs", ["Y", "Y Y_h"])
def test_the_same_bits(op_type: str, direction: str, opset: int, outputs: str) -> None:
    model = recurrent(op_type, 1, opset, outputs, direction=direction)
    rewritten, modified = applied(read_last_state.apply, model)
    assert modified
    rewritten, _ = applied(collapse_views.apply, rewritten)
    assert Counter(node.op_type for node in rewritten.graph.node)["Squeeze"] == 0
    for feed in feeds(model, count=2):
        for before, after in zip(opened(model).run(None, feed), opened(rewritten).run(None, feed), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("steps", [2, "T"])
def test_more_steps_stay(steps: int | str) -> None:
    assert not applied(read_last_state.apply, recurrent(steps=steps))[1]


def test_lengths_of_samples_stay() -> None:
    model = recurrent()
    model.graph.node[0].input.extend(["", "lengths"])
    lengths = net([], {}, {}, {"lengths": np.array([1, 0], np.int32)}).graph.initializer
    model.graph.initializer.extend(lengths)
    assert not applied(read_last_state.apply, model)[1]
