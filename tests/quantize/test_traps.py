"""What ONNX Runtime's own quantizer gets wrong without an error, with a graph for each case: see docs/quantize.md."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from stages.common.base import paths
from stages.common.base.errors import ParamsError, StageError
from stages.common.graph import refusal
from tests.onnx_models import ir_model
from tests.quantize.running import Bench, graph, normal, run

WIDE = {"x": normal(12, 16, seed=1)}


def _dense(name: str = "dense", weight: str = "W") -> onnx.NodeProto:
    return helper.make_node("MatMul", ["x", weight], ["y"], name)


# Files that do not load, or compute garbage.


@pytest.mark.parametrize("weight_type", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("shape", [(3, 16, 8), (1, 16, 8), (1, 2, 16, 8), (16, 1), (1, 16, 1)])
def test_stacks_of_matrices_run_per_channel_and_per_tensor(
    bench: Bench, shape: tuple[int, ...], per_channel: bool, weight_type: str
) -> None:
    columns = shape[-1]
    weight = normal(*shape) * np.geomspace(0.01, 1, columns, dtype=np.float32)
    model = graph([_dense()], {"x": ("batch", 1, 5, 16)}, {"y": None}, {"W": weight})
    bench.give(model, {"x": normal(8, 1, 5, 16)})
    outcome = bench.run(per_channel=per_channel, weight_type=weight_type)
    assert outcome.quantized() == {"dense"}
    assert outcome.nodes["dense"]["how"] == f"{weight_type} per {'channel' if per_channel else 'tensor'}"
    assert outcome.cosine({"x": normal(8, 1, 5, 16)}) > 0.999


def test_scales_per_channel_keep_small_columns(bench: Bench) -> None:
    weight = normal(16, 8) * np.geomspace(1e-4, 1, 8, dtype=np.float32)
    bench.give(graph([_dense()], {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": weight}), WIDE)
    smallest = []
    for per_channel in (True, False):
        outcome = bench.run(per_channel=per_channel)
        smallest.append(run(outcome.int8, WIDE)["y"][:, 0])
    np.testing.assert_allclose(smallest[0], (WIDE["x"] @ weight)[:, 0], atol=1e-5)
    assert not smallest[1].any()


def test_a_weight_of_one_dimension_stays_float(bench: Bench) -> None:
    bench.give(graph([_dense()], {"x": ("n", 16)}, {"y": ("n",)}, {"W": normal(16)}), WIDE)
    outcome = bench.run()
    assert outcome.metrics["status"] == "nothing_to_quantize"
    assert "one dimension" in outcome.nodes["dense"]["reason"]


@pytest.mark.parametrize("suffix", ["scale", "quantized", "zero_point", "int8", "int8_scale", "int8_zero"])
@pytest.mark.parametrize("stem", ["W", "x"])
def test_names_that_are_taken_collide_with_nothing(bench: Bench, stem: str, suffix: str) -> None:
    taken = f"{stem}_{suffix}"
    nodes = [_dense(), helper.make_node("Mul", ["y", taken], ["z"], "scaled")]
    weights = {"W": normal(16, 8), taken: np.full(8, 3, np.float32)}
    bench.give(graph(nodes, {"x": ("n", 16)}, {"z": ("n", 8)}, weights), WIDE)
    outcome = bench.run()
    assert outcome.quantized() == {"dense"}
    assert outcome.cosine(WIDE) > 0.999


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_weights_that_are_not_finite_are_named(bench: Bench, value: float, word: str) -> None:
    weight = normal(16, 8)
    weight[3, 4] = value
    bench.give(graph([_dense()], {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": weight}), WIDE)
    with pytest.raises(StageError, match=f"weight 'W' of the MatMul node 'dense' has {word} in 1 of 128 values"):
        bench.run()


def test_an_attention_mask_of_minus_infinity_is_no_damage(bench: Bench) -> None:
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    nodes = [
        _dense(),
        helper.make_node("Add", ["y", "mask"], ["masked"], "add"),
        helper.make_node("Softmax", ["masked"], ["z"], "softmax"),
    ]
    model = graph(nodes, {"x": ("n", 8, 16)}, {"z": ("n", 8, 8)}, {"W": normal(16, 8), "mask": mask})
    bench.give(model, {"x": normal(8, 8, 16)})
    assert bench.run().quantized() == {"dense"}


def test_a_table_of_masks_stays_float(bench: Bench) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], "ids", to=TensorProto.INT64),
        helper.make_node("Gather", ["mask", "ids"], ["rows"], "rows"),
        helper.make_node("Softmax", ["rows"], ["y"], "softmax"),
    ]
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    bench.give(graph(nodes, {"x": ("n",)}, {"y": None}, {"mask": mask}), {"x": np.arange(8, dtype=np.float32)})
    assert "infinity" in bench.run().nodes["rows"]["reason"]


def test_missing_values_in_the_data_are_no_fault_of_the_model(bench: Bench) -> None:
    x = normal(12, 16)
    x[::2, 3] = np.nan
    bench.give(graph([_dense()], {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": normal(16, 8)}), {"x": x})
    assert bench.run().quantized() == {"dense"}


@pytest.mark.parametrize(("ir_version", "opset", "words"), [(99, 17, "IR version 99"), (8, 99, "opset 99")])
def test_versions_of_the_future_are_refused(bench: Bench, ir_version: int, opset: int, words: str) -> None:
    model = graph([_dense()], {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": normal(16, 8)}, opset, ir_version=ir_version)
    bench.give(model, WIDE)
    with pytest.raises(StageError, match=words):
        bench.run()


@pytest.mark.parametrize("weight_type", ["QInt4", "QUInt4"])
def test_four_bits_are_not_for_dynamic(bench: Bench, weight_type: str) -> None:
    bench.give(graph([_dense()], {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": normal(16, 8)}), WIDE)
    with pytest.raises(ParamsError, match=r"which only quantize\.method weight_only takes"):
        bench.run(weight_type=weight_type)


# Nodes that silently stay float.


def _layers(*names: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", [f"h{at}" if at else "x", f"W{at}"], [f"h{at + 1}"], name)
        for at, name in enumerate(names)
    ]
    weights = {f"W{at}": normal(16, 16, seed=at) for at in range(len(names))}
    return graph(nodes, {"x": ("n", 16)}, {f"h{len(names)}": ("n", 16)}, weights)


def test_excluded_nodes_stay_float(bench: Bench) -> None:
    bench.give(_layers("/encoder/0", "/encoder/1", "/head"), WIDE)
    outcome = bench.run(exclude_nodes=["/encoder/*"])
    assert outcome.quantized() == {"/head"}
    assert outcome.nodes["/encoder/0"]["reason"] == "matches '/encoder/*' of quantize.exclude_nodes"
    assert outcome.metrics["nodes"] == {"quantizable": 3, "quantized": 1, "kept_float": 2}


def test_an_exact_name_is_excluded_whatever_it_is(bench: Bench) -> None:
    bench.give(_layers("layer[0]/MatMul", "layer0/MatMul", "layer[1]/MatMul"), WIDE)
    assert bench.run(exclude_nodes=["layer[0]/MatMul"]).quantized() == {"layer0/MatMul", "layer[1]/MatMul"}
    assert bench.run(exclude_nodes=["layer[0]*"]).quantized() == {"layer[0]/MatMul", "layer[1]/MatMul"}


def test_a_pattern_that_matches_nothing_is_an_error_with_near_names(bench: Bench) -> None:
    bench.give(_layers("/encoder/0", "/encoder/1", "/head"), WIDE)
    with pytest.raises(StageError, match=r"'/encodr/0', which matches no node.* Did you mean '/encoder/0'"):
        bench.run(exclude_nodes=["/encodr/0"])
    assert not paths.INT8_MODEL.exists()


def test_a_type_of_operator_that_cannot_be_quantized_is_an_error(bench: Bench) -> None:
    bench.give(_layers("only"), WIDE)
    with pytest.raises(StageError, match=r"'Matmul', which quantize\.method dynamic .* Did you mean 'MatMul'"):
        bench.run(op_types=["Matmul"])


def test_nodes_without_a_name_can_be_excluded(bench: Bench) -> None:
    bench.give(_layers("", "named", ""), WIDE)
    assert set(bench.run().nodes) == {"MatMul_0", "named", "MatMul_2"}
    assert bench.run(exclude_nodes=["MatMul_0"]).quantized() == {"named", "MatMul_2"}


def test_nodes_of_one_name_in_two_graphs_can_be_excluded_one_by_one(bench: Bench) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 16] x) => (float[N, 16] y) {
            [same] h = MatMul(x, W)
            top = ReduceMax <keepdims = 0> (h)
            zero = Constant <value = float {0}> ()
            positive = Greater(top, zero)
            y = If (positive) <
                then_branch = a () => (float[N, 16] s) { [same] s = MatMul(h, W) },
                else_branch = b () => (float[N, 16] t) { [same] t = MatMul(h, V) }
            >
        }
    """)
    model.graph.initializer.extend(numpy_helper.from_array(normal(16, 16, seed=ord(name)), name) for name in "WV")
    bench.give(model, WIDE)
    outcome = bench.run()
    assert set(outcome.nodes) == outcome.quantized() == {"same", "same_1", "same_2"}
    assert outcome.cosine(WIDE) > 0.999
    assert bench.run(exclude_nodes=["same_1"]).quantized() == {"same", "same_2"}


BEHIND = {
    "Constant": [helper.make_node("Constant", [], ["V"], "c", value=numpy_helper.from_array(normal(16, 8)))],
    "Identity": [helper.make_node("Identity", ["W"], ["V"], "c")],
    "Transpose": [helper.make_node("Transpose", ["T"], ["V"], "c")],
    "Cast": [helper.make_node("Cast", ["H"], ["V"], "c", to=TensorProto.FLOAT)],
    "Reshape": [
        helper.make_node("Constant", [], ["shape"], "s", value_ints=[16, 8]),
        helper.make_node("Reshape", ["F", "shape"], ["V"], "c"),
    ],
    "Split": [helper.make_node("Split", ["S"], ["V", "rest"], "c", axis=1, num_outputs=2)],
    "Identity of Transpose": [
        helper.make_node("Transpose", ["T"], ["U"], "t"),
        helper.make_node("Identity", ["U"], ["V"], "c"),
    ],
}
STORED = {
    "W": normal(16, 8),
    "T": normal(8, 16),
    "H": normal(16, 8).astype(np.float16),
    "F": normal(128),
    "S": normal(16, 16),
}


@pytest.mark.parametrize("way", BEHIND)
def test_weights_behind_other_nodes_are_reached(bench: Bench, way: str) -> None:
    used = {name for node in BEHIND[way] for name in node.input}
    stored = {name: values for name, values in STORED.items() if name in used}
    model = graph([*BEHIND[way], _dense(weight="V")], {"x": ("n", 16)}, {"y": ("n", 8)}, stored, opset=18)
    bench.give(model, WIDE)
    outcome = bench.run()
    assert outcome.quantized() == {"dense"}
    assert outcome.cosine(WIDE) > 0.999
    floats = [tensor.name for tensor in outcome.int8_model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert all(
        len(numpy_helper.to_array(tensor).ravel()) <= 8
        for tensor in outcome.int8_model.graph.initializer
        if tensor.name in floats
    ), "the float weight left the file"


def test_a_weight_that_would_grow_stays_computed(bench: Bench) -> None:
    nodes = [
        helper.make_node("Constant", [], ["shape"], "s", value_ints=[16, 4096]),
        helper.make_node("Expand", ["seed", "shape"], ["V"], "grow"),
        _dense(weight="V"),
    ]
    bench.give(graph(nodes, {"x": ("n", 16)}, {"y": ("n", 4096)}, {"seed": normal(16, 1)}), WIDE)
    assert bench.run().metrics["size"]["int8_mb"] < 0.01


def test_weights_in_local_functions_are_reached(bench: Bench) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
        g (float[N, 4] x) => (float[N, 2] y) { y = mine.dense(x) }
        <domain: "mine", opset_import: ["" : 17]>
        dense (x) => (y) {
            W = Constant <value = float[4, 2] {1, -2, 3, -4, 5, -6, 7, -8}> ()
            y = MatMul(x, W)
        }
    """)
    bench.give(model, {"x": normal(12, 4)})
    outcome = bench.run()
    assert outcome.metrics["nodes"]["quantized"] == 1
    assert "local functions inlined" in outcome.said
    assert outcome.cosine({"x": normal(12, 4)}) > 0.999


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({"alpha": 0.5}, (16, 8)),
        ({"alpha": -2.0, "beta": 3.0}, (16, 8)),
        ({"beta": 0.0}, (16, 8)),
        ({"transB": 1}, (8, 16)),
        ({"transA": 1}, (12, 8)),
        ({"transA": 1, "transB": 1, "alpha": 0.1, "beta": -1.0}, (8, 12)),
    ],
)
@pytest.mark.parametrize("bias", ["none", "vector", "row", "computed"])
def test_gemm_with_any_attributes(
    bench: Bench, attributes: dict[str, float], shape: tuple[int, int], bias: str
) -> None:
    weights = {"W": normal(*shape)} | ({"b": normal(8) if bias == "vector" else normal(1, 8)} if bias != "none" else {})
    nodes = [helper.make_node("Gemm", ["x", "W"] + ([] if bias == "none" else ["c"]), ["y"], "gemm", **attributes)]
    if bias == "computed":
        nodes.insert(0, helper.make_node("ReduceMax", ["x"], ["top"], "top", keepdims=0))
        nodes.insert(1, helper.make_node("Mul", ["b", "top"], ["c"], "grown"))
    elif bias != "none":
        nodes[0].input[2] = "b"
    model = graph(nodes, {"x": (12, 16)}, {"y": None}, weights)
    bench.give(model, {"x": normal(5, 12, 16)}, "feeds")
    outcome = bench.run()
    assert outcome.quantized() == {"gemm"}
    assert outcome.cosine({"x": normal(12, 16, seed=9)}) > 0.999


def test_what_has_no_form_in_int8_is_said(bench: Bench) -> None:
    double = numpy_helper.from_array(normal(16, 16).astype(np.float64), "D")
    nodes = [
        helper.make_node("MatMul", ["L", "x"], ["left"], "left"),
        helper.make_node("MatMul", ["x", "left"], ["both"], "two activations"),
        helper.make_node("Cast", ["both"], ["wide"], "widen", to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["wide", "D"], ["far"], "double"),
        helper.make_node("Cast", ["far"], ["y"], "narrow", to=TensorProto.FLOAT),
    ]
    model = graph(nodes, {"x": (16, 16)}, {"y": None}, {"L": normal(16, 16)})
    model.graph.initializer.append(double)
    bench.give(model, {"x": normal(6, 16, 16)}, "feeds")
    outcome = bench.run()
    assert outcome.metrics["status"] == "nothing_to_quantize"
    assert "on the left" in outcome.nodes["left"]["reason"]
    assert "float64" in outcome.nodes["double"]["reason"]
    assert "two activations" not in outcome.nodes


def test_gru_is_said(bench: Bench) -> None:
    node = helper.make_node("GRU", ["x", "W", "R"], ["", "y"], "gru", hidden_size=8)
    model = graph([node], {"x": (5, "n", 16)}, {"y": None}, {"W": normal(1, 24, 16), "R": normal(1, 24, 8)})
    bench.give(model, {"x": normal(6, 5, 2, 16)}, "feeds")
    assert bench.run().nodes["gru"]["reason"] == "quantize.method dynamic does not quantize GRU"


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lstm(bench: Bench, direction: str, per_channel: bool) -> None:
    directions = 2 if direction == "bidirectional" else 1
    node = helper.make_node("LSTM", ["x", "W", "R", "B"], ["y", "h", "c"], "lstm", hidden_size=8, direction=direction)
    weights = {
        "W": normal(directions, 32, 16) * 0.3,
        "R": normal(directions, 32, 8) * 0.3,
        "B": normal(directions, 64) * 0.1,
    }
    model = graph([node], {"x": (5, "n", 16)}, {"y": None, "h": None, "c": None}, weights)
    bench.give(model, {"x": normal(6, 5, 2, 16)}, "feeds")
    outcome = bench.run(per_channel=per_channel)
    assert outcome.quantized() == {"lstm"}
    assert outcome.cosine({"x": normal(5, 2, 16, seed=3)}) > 0.99


def test_an_lstm_that_names_its_layout(bench: Bench) -> None:
    node = helper.make_node("LSTM", ["x", "W", "R"], ["y"], "lstm", hidden_size=8, layout=0)
    weights = {"W": normal(1, 32, 16), "R": normal(1, 32, 8)}
    bench.give(graph([node], {"x": (5, "n", 16)}, {"y": None}, weights), {"x": normal(6, 5, 2, 16)}, "feeds")
    assert bench.run().quantized() == {"lstm"}


@pytest.mark.parametrize("knobs", [{}, {"per_channel": False}, {"weight_type": "QUInt8"}])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_embeddings(bench: Bench, axis: int, knobs: dict[str, object]) -> None:
    table = normal(50, 16) * np.geomspace(0.5, 1, 50, dtype=np.float32)[:, None]
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], "ids", to=TensorProto.INT64),
        helper.make_node("Gather", ["E", "ids"], ["y"], "embed", axis=axis),
    ]
    bench.give(graph(nodes, {"x": ("n", 3)}, {"y": None}, {"E": table}), {"x": np.ones((9, 3), np.float32)})
    outcome = bench.run(**knobs)
    assert outcome.quantized() == {"embed"}
    assert outcome.cosine({"x": np.array([[0, 7, 15], [1, 1, -1]], np.float32)}) > 0.999


def test_a_tied_weight_is_used_by_both(bench: Bench) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], "ids", to=TensorProto.INT64),
        helper.make_node("Gather", ["E", "ids"], ["h"], "embed"),
        helper.make_node("Transpose", ["E"], ["E_t"], "turn"),
        helper.make_node("MatMul", ["h", "E_t"], ["y"], "head"),
    ]
    bench.give(graph(nodes, {"x": ("n", 3)}, {"y": None}, {"E": normal(50, 64)}), {"x": np.ones((9, 3), np.float32)})
    outcome = bench.run()
    assert outcome.quantized() == {"embed", "head"}
    assert outcome.metrics["size"]["times_smaller"] > 1.4
    assert outcome.cosine({"x": np.array([[0, 7, 15]], np.float32)}) > 0.999


def test_a_weight_of_two_nodes_is_stored_once(bench: Bench) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "W"], ["y"], "second"),
    ]
    bench.give(graph(nodes, {"x": ("n", 64)}, {"y": None}, {"W": normal(64, 64)}), {"x": normal(12, 64)})
    outcome = bench.run()
    stored = [tensor for tensor in outcome.int8_model.graph.initializer if tensor.data_type == TensorProto.INT8]
    assert len(stored) == 1


def test_a_weight_that_a_float_node_needs_stays_too(bench: Bench) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "W"], ["y"], "second"),
    ]
    bench.give(graph(nodes, {"x": ("n", 16)}, {"y": None}, {"W": normal(16, 16)}), WIDE)
    outcome = bench.run(exclude_nodes=["second"])
    assert outcome.quantized() == {"first"}
    assert outcome.cosine(WIDE) > 0.999


def test_conv_stays_float_unless_asked_for(bench: Bench) -> None:
    node = helper.make_node("Conv", ["x", "W", "b"], ["y"], "conv", pads=[1, 1, 1, 1], group=2, strides=[2, 2])
    weight = normal(8, 2, 3, 3) * np.geomspace(0.01, 1, 8, dtype=np.float32)[:, None, None, None]
    model = graph([node], {"x": ("n", 4, 9, 9)}, {"y": None}, {"W": weight, "b": normal(8)})
    bench.give(model, {"x": normal(12, 4, 9, 9)})
    outcome = bench.run()
    assert outcome.metrics["status"] == "nothing_to_quantize"
    assert "use quantize.method static" in outcome.nodes["conv"]["reason"]
    for weight_type in ("QInt8", "QUInt8"):
        outcome = bench.run(op_types=["Conv"], weight_type=weight_type)
        assert outcome.quantized() == {"conv"}
        assert outcome.cosine({"x": normal(2, 4, 9, 9, seed=5)}) > 0.999


@pytest.mark.parametrize("shape", [(4, 0), (0, 8)])
def test_empty_weights_are_left_alone(bench: Bench, shape: tuple[int, int]) -> None:
    nodes = [helper.make_node("MatMul", ["x", "W"], ["y"], "empty")]
    bench.give(graph(nodes, {"x": ("n", shape[0])}, {"y": None}, {"W": normal(*shape)}), {"x": normal(8, shape[0])})
    outcome = bench.run()
    assert "empty" in outcome.nodes["empty"]["reason"]
    assert outcome.metrics["status"] == "nothing_to_quantize"


def test_what_is_quantized_already_is_refused(bench: Bench) -> None:
    bench.give(_layers("only"), WIDE)
    twice = bench.run().int8_model
    bench.give(twice, WIDE)
    with pytest.raises(StageError, match="is quantized already: it has the DynamicQuantizeLinear node"):
        bench.run()


@pytest.mark.parametrize(
    "op_type",
    [
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "DynamicQuantizeLSTM",
        "MatMulInteger",
        "ConvInteger",
        "MatMulIntegerToFloat",
        "QLinearMatMul",
        "QLinearAdd",
        "QAttention",
        "QGemm",
        "MatMulNBits",
        "GatherBlockQuantized",
    ],
)
def test_every_quantized_operator_is_known(op_type: str) -> None:
    branch = helper.make_graph([helper.make_node(op_type, ["x"], ["y"], "deep inside")], "branch", [], [])
    model = graph([helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)], {}, {}, {})
    with pytest.raises(StageError, match=f"the model is quantized already: it has the {op_type} node 'deep inside'"):
        refusal.refuse(ir_model(model), "the model")


@pytest.mark.parametrize("op_type", ["MatMul", "Gemm", "Conv", "LSTM", "LinearClassifier", "QuickGelu", "Attention"])
def test_no_float_operator_is_taken_for_a_quantized_one(op_type: str) -> None:
    refusal.refuse(ir_model(graph([helper.make_node(op_type, ["x"], ["y"])], {}, {}, {})), "the model")


def test_a_model_that_fp32_cannot_run_is_refused_in_the_words_of_onnx_runtime(bench: Bench) -> None:
    node = helper.make_node("Mystery", ["x"], ["h"], "m", domain="my.ops")
    dense = helper.make_node("MatMul", ["h", "W"], ["y"], "dense")
    model = graph([node, dense], {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": normal(16, 8)})
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    bench.give(model, WIDE)
    with pytest.raises(StageError, match=r"my\.ops:Mystery"):
        bench.run()


# Opsets and interfaces.


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 17, 20, 21, 23])
def test_every_opset(bench: Bench, opset: int) -> None:
    nodes = [_dense(), helper.make_node("Relu", ["y"], ["z"], "relu")]
    bench.give(graph(nodes, {"x": ("n", 16)}, {"z": ("n", 8)}, {"W": normal(16, 8)}, opset), WIDE)
    outcome = bench.run()
    assert outcome.quantized() == {"dense"}
    assert outcome.cosine(WIDE) > 0.999


@pytest.mark.parametrize(
    "imports",
    [[("ai.onnx", 17)], [("", 17), ("", 17)], [("", 17), ("ai.onnx", 17)], [("", 17), ("com.microsoft.nchwc", 1)]],
)
def test_opset_imports_are_put_right(bench: Bench, imports: list[tuple[str, int]]) -> None:
    model = graph([_dense()], {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": normal(16, 8)})
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*entry) for entry in imports)
    bench.give(model, WIDE)
    outcome = bench.run()
    assert outcome.quantized() == {"dense"}
    assert [(entry.domain, entry.version) for entry in outcome.int8_model.opset_import] == [("", 17)]


def _listed(names: list[str], ir_version: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Gemm", ["x", "W", "b"], ["y"], "gemm")]
    model = graph(
        nodes, {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": normal(16, 8), "b": normal(8)}, 9, ir_version=ir_version
    )
    shapes = {"W": (16, 8), "b": (8,)}
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in names)
    return model


@pytest.mark.parametrize("ir_version", [3, 4, 6])
def test_initializers_that_are_all_listed_as_inputs_are_constants(bench: Bench, ir_version: int) -> None:
    bench.give(_listed(["W", "b"], ir_version), WIDE)
    outcome = bench.run()
    assert outcome.quantized() == {"gemm"}
    assert [given.name for given in outcome.int8.get_inputs()] == ["x"]
    assert outcome.cosine(WIDE) > 0.999


@pytest.mark.parametrize("method", ["dynamic", "stored"])
def test_a_weight_that_a_caller_may_override_stays(bench: Bench, method: str) -> None:
    bench.give(_listed(["W"], 6), WIDE)
    outcome = bench.run(method=method)
    assert "which a caller may override" in outcome.nodes["gemm"]["reason"]
    assert [given.name for given in outcome.int8.get_overridable_initializers()] == ["W"]


def test_a_table_of_numbers_is_no_embedding(bench: Bench) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], "ids", to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["y"], "look up"),
    ]
    table = np.array([1e-3, 1, 640], np.float32)
    bench.give(graph(nodes, {"x": ("n", 2)}, {"y": None}, {"table": table}), {"x": np.ones((9, 2), np.float32)})
    assert "one dimension" in bench.run().nodes["look up"]["reason"]


def test_the_attention_of_onnx_is_not_that_of_onnx_runtime(bench: Bench) -> None:
    node = helper.make_node("Attention", ["x", "K", "V"], ["y"], "attend", q_num_heads=2, kv_num_heads=2)
    model = graph([node], {"x": (1, 4, 16)}, {"y": None}, {"K": normal(1, 6, 16), "V": normal(1, 6, 16)}, 23)
    model.ir_version = 11
    bench.give(model, {"x": normal(8, 1, 4, 16)}, "feeds")
    assert bench.run().nodes["attend"]["op_type"] == "ai.onnx.Attention"


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_attention_of_onnx_runtime(bench: Bench, per_channel: bool, biased: bool) -> None:
    inputs = ["x", "W", "b"][: 2 + biased]
    node = helper.make_node("Attention", inputs, ["y"], "attend", domain="com.microsoft", num_heads=2)
    weights = {"W": normal(16, 48) / np.float32(4), "b": normal(48) / np.float32(4)}
    model = graph([node], {"x": ("n", 4, 16)}, {"y": None}, weights)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    bench.give(model, {"x": normal(8, 4, 16)})
    outcome = bench.run(per_channel=per_channel)
    assert outcome.op_types() == {"DynamicQuantizeLinear", "QAttention"}
    assert outcome.cosine({"x": normal(3, 4, 16, seed=2)}) > 0.998


def test_embed_layer_normalization(bench: Bench) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], "ids", to=TensorProto.INT32),
        helper.make_node(
            "EmbedLayerNormalization",
            ["ids", "", "word", "position", "", "gamma", "beta"],
            ["y", "mask_index"],
            "embed",
            domain="com.microsoft",
        ),
    ]
    weights = {"word": normal(50, 16), "position": normal(8, 16), "gamma": normal(16), "beta": normal(16)}
    model = graph(nodes, {"x": ("n", 4)}, {"y": None}, weights)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    bench.give(model, {"x": np.arange(32, dtype=np.float32).reshape(8, 4)})
    outcome = bench.run()
    assert outcome.op_types() == {"Cast", "QEmbedLayerNormalization"}
    assert outcome.cosine({"x": np.array([[0, 3, 49, 7]], np.float32)}) > 0.999


def test_a_vector_times_a_matrix(bench: Bench) -> None:
    bench.give(graph([_dense()], {"x": (16,)}, {"y": None}, {"W": normal(16, 8)}), {"x": normal(6, 16)}, "feeds")
    outcome = bench.run()
    assert outcome.quantized() == {"dense"}
    assert outcome.cosine({"x": normal(16)}) > 0.999


@pytest.mark.parametrize("in_node", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_sparse_weights_are_weights(bench: Bench, in_node: bool, flat: bool) -> None:
    weight = np.where(np.abs(normal(64, 32)) > 1.5, normal(64, 32), 0).astype(np.float32)
    where = np.flatnonzero(weight) if flat else np.argwhere(weight)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(weight[weight != 0], "W"),
        numpy_helper.from_array(where.astype(np.int64), "where"),
        list(weight.shape),
    )
    nodes = [helper.make_node("MatMul", ["x", "W"], ["y"], "dense")]
    if in_node:
        nodes.insert(0, helper.make_node("Constant", [], ["W"], sparse_value=sparse))
    model = graph(nodes, {"x": ("n", 64)}, {"y": ("n", 32)}, {})
    if not in_node:
        model.graph.sparse_initializer.append(sparse)
    x = {"x": normal(12, 64)}
    bench.give(model, x)
    outcome = bench.run()
    assert outcome.quantized() == {"dense"}
    assert outcome.cosine(x) > 0.999


def test_operators_that_are_gone_keep_the_opset_old(bench: Bench) -> None:
    nodes = [
        helper.make_node("ImageScaler", ["x"], ["s"], bias=[0.0, 0.0], scale=0.5),
        helper.make_node("MatMul", ["s", "W"], ["y"], "dense"),
    ]
    model = graph(nodes, {"x": (1, 2, 4, 4)}, {"y": None}, {"W": normal(4, 8)}, 8)
    bench.give(model, {"x": normal(6, 1, 2, 4, 4)}, "feeds")
    outcome = bench.run()
    assert "Undone: opset converted to 11, because opset 11 has no ImageScaler." in outcome.said
    assert "INT8 needs opset 11, but the model has 8" in outcome.nodes["dense"]["reason"]
