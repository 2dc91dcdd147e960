"""The smallest model there is: what a call costs that computes nothing, and what ONNX Runtime itself needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from stages.bench.feeds import StoredFeed, store


class OneNode(NamedTuple):
    """A model of one Identity node on one float, and its feed."""

    model: Path
    feed: StoredFeed

    def job(self) -> Mapping[str, Any]:
        """Both, as JSON can hold them."""
        return {"model": str(self.model), "feed": self.feed.job()}


def write(folder: Path) -> OneNode:
    """Write the model and its feed."""
    value: dict[str, Any] = {"elem_type": TensorProto.FLOAT, "shape": [1]}
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "one_node",
        [helper.make_tensor_value_info("x", **value)],
        [helper.make_tensor_value_info("y", **value)],
    )
    path = folder / "one_node.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), path)
    return OneNode(path, store(folder / "one_node.npz", {"x": np.zeros(1, np.float32)}, samples=1))
