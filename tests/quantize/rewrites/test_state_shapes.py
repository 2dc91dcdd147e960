"""Shapes that are the same in every run become constants; those that depend on the batch stay."""

from collections import Counter

import numpy as np
from onnx import ModelProto

from stages.quantize.rewrites import state_shapes
from tests.onnx_models import applied, opened
from tests.quantize.nets import net, node


def twice_reshaped(batch: int | str) -> ModelProto:
    """[batch, 3, 4, 5] to [batch, -1, 5] and back to rows of 4, with shapes computed from Shape, as exporters do."""
    nodes, last = [], "x"
    for number in range(2):
        nodes += [
            node("Shape", last, f"shape{number}"),
            node("Gather", f"shape{number} first", f"size{number}", axis=0),
            node("Unsqueeze", f"size{number} axes", f"batch{number}"),
            node("Concat", f"batch{number} rest width{number}", f"target{number}", axis=0),
            node("Reshape", f"{last} target{number}", f"r{number}"),
        ]
        last = f"r{number}"
    constants = {"first": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    constants |= {f"width{number}": np.array([width]) for number, width in enumerate((5, 4))}
    return net([*nodes, node("Neg", last, "y")], {"x": [batch, 3, 4, 5]}, {"y": [batch, 15, 4]}, constants)


def test_the_same_bits_without_computing_shapes() -> None:
    model = twice_reshaped(2)
    rewritten, modified = applied(state_shapes.apply, model)
    assert modified
    assert Counter(node.op_type for node in rewritten.graph.node) == {"Reshape": 2, "Neg": 1}
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)}
    np.testing.assert_array_equal(*(opened(candidate).run(None, feed)[0] for candidate in (model, rewritten)))


def test_a_batch_of_any_size_stays() -> None:
    assert not applied(state_shapes.apply, twice_reshaped("N"))[1]
