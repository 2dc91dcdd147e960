"""Method stored: the file shrinks, and the model that runs is a float one."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx.numpy_helper import to_array

from stages.common.base import paths
from tests.quantize import nets
from tests.quantize.nets import net, node, normal
from tests.quantize.running import Bench


def optimized(tmp_path: Path) -> list[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    ort.InferenceSession(paths.INT8_MODEL.read_bytes(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]


@pytest.mark.parametrize("net", ["mlp", "conv"])
def test_the_weights_are_folded_into_floats_when_the_model_is_loaded(bench: Bench, net: str, tmp_path: Path) -> None:
    if net == "mlp":
        bench.give(nets.mlp((64, 512, 10)), {"x": np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)})
    else:
        bench.give(nets.conv_net(16), {"x": np.random.default_rng(0).normal(size=(40, 1, 16, 16)).astype(np.float32)})
    outcome = bench.run(method="stored")
    assert outcome.metrics["size"]["times_smaller"] > (3 if net == "mlp" else 1.2)
    assert all(row["how"] == "stored as QInt8, computed in float" for row in outcome.nodes.values())
    assert not {"Cast", "Mul"} & set(optimized(tmp_path))


RANDOM = np.random.default_rng(1)
SUMS: dict[str, tuple[str, dict[str, list[int]], tuple[int, ...], int | tuple[int, ...], dict[str, int]]] = {
    "MatMul": ("x W", {"x": [4, 40]}, (40, 6), 0, {}),
    "MatMul of a stack": ("x W", {"x": [3, 4, 40]}, (3, 40, 6), 1, {}),
    "MatMul from the left": ("W x", {"x": [40, 4]}, (6, 40), 1, {}),
    "Gemm": ("x W", {"x": [4, 40]}, (6, 40), 1, {"transB": 1}),
    "Conv": ("x W", {"x": [1, 4, 8, 8]}, (6, 4, 3, 3), (1, 2, 3), {}),
    "Conv of single channels": ("x W", {"x": [1, 6, 9, 9]}, (6, 1, 5, 5), (1, 2, 3), {"group": 6}),
    "ConvTranspose": ("x W", {"x": [1, 40, 4, 4]}, (40, 6, 2, 2), 0, {}),
    "RNN": ("x W W", {"x": [5, 2, 40]}, (1, 40, 40), 2, {"hidden_size": 40}),
}


@pytest.mark.parametrize("case", SUMS)
def test_the_rounding_errors_of_an_output_cancel(bench: Bench, case: str) -> None:
    """After a Relu all activations are positive: errors of one sign would shift an output, layer after layer."""
    inputs, shapes, shape, summed, attributes = SUMS[case]
    rank = 4 if case == "RNN" else len(shapes["x"])
    weight = RANDOM.normal(size=shape).astype(np.float32)
    bench.give(
        net([node(case.split(maxsplit=1)[0], inputs, "y", **attributes)], shapes, {"y": "abcd"[:rank]}, {"W": weight}),
        {"x": RANDOM.normal(size=(40, *shapes["x"])).astype(np.float32)},
        "feeds",
    )
    stored = {tensor.name: to_array(tensor) for tensor in bench.run(method="stored").int8_model.graph.initializer}
    scale = stored["W_int8_scale"]
    errors = weight - stored["W_int8"] * scale
    assert np.all(np.abs(errors.sum(summed, keepdims=True)) <= 0.51 * scale)


def lookup(*behind: NodeProto, width: int) -> ModelProto:
    """A model that looks up rows of 64 values in a table of 300 rows, followed by the nodes `behind`."""
    model = net([node("Gather", "E ids", "h"), *behind], {}, {"y": ["N", width]}, {"E": normal(300, 64)})
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"]))
    return model


def in_8_bits(model: ModelProto) -> int:
    return sum(tensor.data_type == TensorProto.INT8 for tensor in model.graph.initializer)


def test_a_table_that_is_looked_up_twice_is_stored_and_computed_once(bench: Bench, tmp_path: Path) -> None:
    again = [node("Gather", "E first", "g"), node("Add", "h g", "y")]
    model = lookup(*again, width=64)
    model.graph.input.append(helper.make_tensor_value_info("first", TensorProto.INT64, ["N"]))
    bench.give(model, {"ids": np.arange(40), "first": np.arange(40)[::-1].copy()})
    outcome = bench.run(method="stored")
    assert outcome.metrics["size"]["times_smaller"] > 3
    assert outcome.quantized() == {"Gather_h", "Gather_g"}
    assert [node.op_type for node in outcome.int8_model.graph.node].count("Cast") == 1
    assert set(optimized(tmp_path)) == {"Gather", "Add"}


@pytest.mark.parametrize(
    "head",
    [[node("Transpose", "E", "V"), node("MatMul", "h V", "y")], [node("Gemm", "h E", "y", transB=1)]],
    ids=["transposed", "transB"],
)
def test_an_embedding_that_is_the_last_layer_too_is_stored_once(
    bench: Bench, head: list[NodeProto], tmp_path: Path
) -> None:
    bench.give(lookup(*head, width=300), {"ids": np.arange(40)})
    outcome = bench.run(method="stored")
    assert in_8_bits(outcome.int8_model) == 1
    assert outcome.metrics["size"]["times_smaller"] > 3
    assert outcome.cosine({"ids": np.arange(40)}) > 0.999
    assert {"Gather"} < set(optimized(tmp_path)) <= {"Gather", "MatMul", "Gemm"}


def test_a_stack_of_matrices_that_is_looked_up_has_a_scale_for_each_column(bench: Bench) -> None:
    nodes = [node("Gather", "E ids", "w"), node("Unsqueeze", "x one", "u"), node("MatMul", "u w", "y")]
    experts = normal(4, 32, 48)
    experts[2] *= 1000
    model = net(nodes, {"x": ["N", 32]}, {"y": ["N", 1, 48]}, {"E": experts, "one": np.array([1])})
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"]))
    data = {"x": normal(40, 32), "ids": np.arange(40) % 4}
    bench.give(model, data)
    outcome = bench.run(method="stored")
    assert outcome.quantized() == {"Gather_w"}
    assert outcome.cosine({"x": data["x"][1:2], "ids": data["ids"][1:2]}) > 0.999


def test_numbers_to_look_up_stay(bench: Bench) -> None:
    model = net([node("Gather", "E ids", "y")], {}, {"y": ["N"]}, {"E": normal(300)})
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"]))
    bench.give(model, {"ids": np.arange(40)})
    assert "so it is not an embedding" in bench.run(method="stored").said
