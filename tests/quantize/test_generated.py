"""Generated models: MLPs, convolutional nets, weights in If and Loop. Quantize, load, run, compare."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.model.sessions import open_session, session_options
from tests.onnx_models import ir_model
from tests.quantize.running import Bench, graph, normal, run

FEW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KNOBS = st.fixed_dictionaries(
    {"weight_type": st.sampled_from(["QInt8", "QUInt8"]), "per_channel": st.booleans(), "reduce_range": st.booleans()}
)
WIDTHS = st.lists(st.integers(1, 24), min_size=2, max_size=5)
OPSETS = st.sampled_from([9, 11, 13, 17, 21])


def _mlp(widths: list[int], gemm: list[bool], opset: int) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {}
    value = "x"
    for at, (rows, columns) in enumerate(itertools.pairwise(widths)):
        weight = normal(rows, columns, seed=at) / np.sqrt(rows)
        weights |= {f"W{at}": weight.astype(np.float32), f"b{at}": normal(columns, seed=at + 50) * np.float32(0.1)}
        if gemm[at % len(gemm)]:
            nodes.append(helper.make_node("Gemm", [value, f"W{at}", f"b{at}"], [f"s{at}"], alpha=0.5))
        else:
            nodes.append(helper.make_node("MatMul", [value, f"W{at}"], [f"p{at}"]))
            nodes.append(helper.make_node("Add", [f"p{at}", f"b{at}"], [f"s{at}"]))
        nodes.append(helper.make_node("Tanh", [f"s{at}"], [f"h{at}"]))
        value = f"h{at}"
    return graph(nodes, {"x": ("n", widths[0])}, {value: ("n", widths[-1])}, weights, opset)


@FEW
@given(WIDTHS, st.lists(st.booleans(), min_size=1, max_size=3), OPSETS, KNOBS)
def test_mlps(bench: Bench, widths: list[int], gemm: list[bool], opset: int, knobs: dict[str, Any]) -> None:
    x = normal(40, widths[0], seed=7)
    bench.give(_mlp(widths, gemm, opset), {"x": x})
    outcome = bench.run(**knobs)
    assert outcome.metrics["nodes"] == {"quantizable": len(widths) - 1, "quantized": len(widths) - 1, "kept_float": 0}
    onnx.checker.check_model(outcome.int8_model)
    assert outcome.cosine({"x": x}) > 0.97


@FEW
@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.sampled_from([1, 2])), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([11, 13, 17]),
    KNOBS,
)
def test_convolutional_nets(
    bench: Bench, layers: list[tuple[int, int, int]], convolutions: bool, opset: int, knobs: dict[str, Any]
) -> None:
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {}
    value, channels = "x", 2
    for at, (factor, kernel, group) in enumerate(layers):
        filters = 2 * factor
        weights |= {f"W{at}": normal(filters, channels // group, kernel, kernel, seed=at), f"b{at}": normal(filters)}
        inputs = [value, f"W{at}", f"b{at}"] if at % 2 else [value, f"W{at}"]
        if at % 2 == 0:
            weights.pop(f"b{at}")
        nodes.append(helper.make_node("Conv", inputs, [f"c{at}"], f"conv{at}", group=group, pads=[kernel // 2] * 4))
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"], f"relu{at}"))
        value, channels = f"r{at}", filters
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pool"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"], "flat"))
    nodes.append(helper.make_node("Gemm", ["flat", "head"], ["y"], "head", transB=1))
    weights["head"] = normal(5, channels)
    x = normal(12, 2, 6, 6, seed=3)
    bench.give(graph(nodes, {"x": ("n", 2, 6, 6)}, {"y": ("n", 5)}, weights, opset), {"x": x})
    outcome = bench.run(op_types=["Conv", "Gemm"] if convolutions else None, **knobs)
    convs = {f"conv{at}" for at in range(len(layers))}
    assert outcome.quantized() - convs == {"head"}
    assert outcome.quantized() & convs == (convs if convolutions else set())
    onnx.checker.check_model(outcome.int8_model)
    assert outcome.cosine({"x": x[:3]}) > 0.97


def _branch(name: str, outer: list[str], depth: int, constant: bool, counter: list[int]) -> onnx.GraphProto:
    """A graph that multiplies `h` of the graph around it by a weight, its own or an outer one, or does so in an If."""
    counter[0] += 1
    label = f"{name}{counter[0]}"
    nodes, weights = [], {}
    weight = outer[counter[0] % len(outer)]
    if constant:
        weight = f"{label}_W"
        if counter[0] % 2:
            held = numpy_helper.from_array(normal(8, 8, seed=counter[0]))
            nodes.append(helper.make_node("Constant", [], [weight], value=held))
        else:
            weights[weight] = normal(8, 8, seed=counter[0])
    result = f"{label}_y"
    nodes.append(helper.make_node("MatMul", ["h", weight], [f"{label}_p"]))
    if depth:
        branches = {
            f"{side}_branch": _branch(f"{label}{side}", outer, depth - 1, not constant, counter)
            for side in ("then", "else")
        }
        nodes.append(helper.make_node("If", ["flag"], [f"{label}_q"], **branches))
        nodes.append(helper.make_node("Add", [f"{label}_p", f"{label}_q"], [result]))
    else:
        nodes.append(helper.make_node("Identity", [f"{label}_p"], [result]))
    output = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(values, key) for key, values in weights.items()]
    return helper.make_graph(nodes, label, [], [output], tensors)


@FEW
@given(st.integers(0, 2), st.booleans(), OPSETS, KNOBS)
def test_weights_in_nested_branches(
    bench: Bench, depth: int, constant: bool, opset: int, knobs: dict[str, Any]
) -> None:
    counter = [0]
    branches = {f"{side}_branch": _branch(side, ["W0", "W1"], depth, constant, counter) for side in ("then", "else")}
    nodes = [
        helper.make_node("MatMul", ["x", "W0"], ["h"]),
        helper.make_node("ReduceSum" if opset >= 13 else "ReduceMax", ["h"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["zero"], ["none"], to=TensorProto.FLOAT),
        helper.make_node("Greater", ["sum", "none"], ["flag"]),
        helper.make_node("If", ["flag"], ["y"], **branches),
    ]
    weights: dict[str, np.ndarray] = {"W0": normal(8, 8), "W1": normal(8, 8, seed=1), "zero": np.zeros((), np.int64)}
    feeds = normal(16, 3, 8, seed=5)
    bench.give(graph(nodes, {"x": (3, 8)}, {"y": None}, weights, opset), {"x": feeds}, "feeds")
    outcome = bench.run(**knobs)
    assert outcome.metrics["nodes"]["quantizable"] == 1 + counter[0]
    assert outcome.metrics["nodes"]["kept_float"] == 0
    kinds = [node.op_type for node in ir_model(outcome.int8_model).graph.all_nodes()]
    assert (kinds.count("MatMul"), kinds.count("MatMulInteger")) == (0, 1 + counter[0])
    fp32, int8 = outcome.fp32, outcome.int8
    for feed in feeds:
        expected, found = run(fp32, {"x": feed})["y"], run(int8, {"x": feed})["y"]
        assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.95


def loop_body(nodes: list[onnx.NodeProto], states: Mapping[str, str]) -> onnx.GraphProto:
    """The body of a Loop, whose states are floats of any shape: the names of their inputs and of their outputs."""
    return helper.make_graph(
        [*nodes, helper.make_node("Identity", ["on"], ["still_on"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in states),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in states.values()),
        ],
    )


@pytest.mark.parametrize("opset", [11, 17])
def test_weights_in_a_loop(bench: Bench, opset: int) -> None:
    body = loop_body(
        [
            helper.make_node("MatMul", ["state", "W"], ["next"], "inner"),
            helper.make_node("Tanh", ["next"], ["bounded"]),
        ],
        {"state": "bounded"},
    )
    nodes = [helper.make_node("Loop", ["times", "", "x"], ["y"], "loop", body=body)]
    weights: dict[str, np.ndarray] = {"W": normal(8, 8) * np.float32(0.5), "times": np.array(4, np.int64)}
    bench.give(graph(nodes, {"x": ("n", 8)}, {"y": None}, weights, opset), {"x": normal(12, 8)})
    outcome = bench.run()
    assert outcome.quantized() == {"inner"}
    assert outcome.nodes["inner"]["graph"] == "loop.body"
    assert outcome.cosine({"x": normal(12, 8)}) > 0.999


def test_weights_that_a_loop_carries_along(bench: Bench) -> None:
    """As TensorFlow writes them: everything that the body reads is a state of the loop."""
    body = loop_body(
        [
            helper.make_node("MatMul", ["state", "carried"], ["next"], "inner"),
            helper.make_node("Tanh", ["next"], ["bounded"]),
            helper.make_node("Identity", ["carried"], ["same"]),
        ],
        {"state": "bounded", "carried": "same"},
    )
    nodes = [helper.make_node("Loop", ["times", "", "x", "W"], ["y", "W_last"], "loop", body=body)]
    weights: dict[str, np.ndarray] = {"W": normal(64, 64) / 8, "times": np.array(4, np.int64)}
    bench.give(graph(nodes, {"x": ("n", 64)}, {"y": None}, weights), {"x": normal(12, 64)})
    outcome = bench.run()
    assert outcome.quantized() == {"inner"}
    assert "unchanged states of loops read from outside" in outcome.said
    assert outcome.cosine({"x": normal(12, 64)}) > 0.999


def test_values_that_the_model_orders(bench: Bench) -> None:
    """Rows in the order of their scores, which are all about equal, so that rounding swaps them."""
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"], "scores"),
        helper.make_node("TopK", ["h", "k"], ["best", "at"], axis=1),
        helper.make_node("Gather", ["T", "at"], ["y"]),
    ]
    weights = {"W": normal(64, 64), "T": normal(64, 8), "k": np.array([32])}
    bench.give(graph(nodes, {"x": ("n", 64)}, {"y": None}, weights), {"x": normal(24, 64) * np.float32(1e-3)})
    outcome = bench.run(op_types=["MatMul"])
    assert not outcome.quantized()
    assert "Note: TopK picks and orders values, so that a small error swaps whole rows" in outcome.said
    bench.sections = {"parity": {"min_sqnr_db": 60.0}}
    with pytest.raises(StageError, match=r"No model can be published .* TopK picks and orders values"):
        bench.run(method="auto", op_types=["MatMul"])


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_a_loop_that_reads_moved_activations(bench: Bench, method: str) -> None:
    """ONNX Runtime ends the process at load if DequantizeLinear is before the Transpose."""
    body = loop_body([helper.make_node("Add", ["state", "moved"], ["next"])], {"state": "next"})
    loop = [
        helper.make_node("Transpose", ["found"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("Unsqueeze", ["turned", "axes"], ["moved"]),
        helper.make_node("Loop", ["times", "", "zero"], ["y"], "loop", body=body),
    ]
    weights = {"W": normal(64, 64, 3) / 8, "times": np.array(3), "zero": np.zeros(1, np.float32), "axes": np.array([0])}
    if method == "dynamic":  # a table with one scale
        nodes = [helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64)]
        nodes += [helper.make_node("Gather", ["T"], ["found"], "node")]
        nodes[-1].input.append("ids")
        weights |= {"T": normal(64, 64)}
        feed = {"x": np.arange(48).reshape(12, 4).astype(np.float32)}
        shape: tuple[int | str, ...] = ("n", 4)
    else:
        nodes = [helper.make_node("Conv", ["x", "W"], ["found"], "node", pads=[1, 1])]
        feed, shape = {"x": normal(12, 64, 9)}, ("n", 64, 9)
    bench.give(graph(nodes + loop, {"x": shape}, {"y": None}, weights), feed)
    outcome = bench.run(method=method, weight_type="QUInt8")
    assert outcome.quantized() == {"node"}
    assert outcome.cosine(feed) > 0.999


@pytest.mark.parametrize("weight_type", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_same_answers_as_quantize_dynamic(bench: Bench, weight_type: str, per_channel: bool) -> None:
    x = normal(40, 24, seed=7)
    bench.give(_mlp([24, 16, 8], [False], 17), {"x": x})
    ours = bench.run(weight_type=weight_type, per_channel=per_channel, portable=False)
    theirs = bench.folder / "theirs.onnx"
    quantize_dynamic(onnx.load(paths.FP32_MODEL), theirs, weight_type=QuantType[weight_type], per_channel=per_channel)
    expected = run(open_session(theirs), {"x": x})
    np.testing.assert_allclose(run(ours.int8, {"x": x})["h1"], expected["h1"], atol=2e-6)


def test_products_are_fused_into_int8_kernels(bench: Bench) -> None:
    bench.give(_mlp([24, 16, 8], [False, True], 17), {"x": normal(40, 24)})
    bench.run()
    options = session_options(1)
    options.optimized_model_filepath = str(bench.folder / "optimized.onnx")
    open_session(paths.INT8_MODEL, options=options)
    kinds = [node.op_type for node in onnx.load(bench.folder / "optimized.onnx").graph.node]
    assert kinds.count("DynamicQuantizeMatMul") == 2
    assert not {"MatMulInteger", "DynamicQuantizeLinear"} & set(kinds)
