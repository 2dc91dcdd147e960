"""Each step of normalising: what it changes, that it changes nothing else, and that it is undone where it does."""

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from stages.common.model import sessions
from stages.quantize import check, normalise
from stages.quantize.graphs import Names, all_nodes, sort_nodes
from stages.quantize.inventory import weighted_nodes
from stages.quantize.normalise import constants, fused, inputs, names, opset
from tests.quantize.running import Bench, graph, normal, run

X = {"x": normal(4, 16)}


def _reference(model: onnx.ModelProto) -> check.Reference:
    return check.reference(sessions.open_session(model), [X], "model")


def _model(opset_version: int = 17) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Transpose", ["T"], ["W"]),
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return graph(nodes, {"x": ("n", 16)}, {"y": ("n", 8)}, {"T": normal(8, 16)}, opset_version)


@pytest.mark.parametrize("apply", [apply for _, apply in normalise.PASSES])
def test_a_pass_leaves_its_input_alone_and_has_nothing_to_do_the_second_time(apply: normalise.Pass) -> None:
    model = _model(11)
    before = model.SerializeToString(deterministic=True)
    once, _ = apply(model)
    assert model.SerializeToString(deterministic=True) == before
    twice, modified = apply(once)
    assert not modified
    assert twice is once


def test_all_steps_together() -> None:
    model = _model(11)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.metadata_props.add(key="author", value="someone")
    normal_model, steps = normalise.normalise(model, _reference(model))
    assert [step.name for step in steps if not step.undone] == [
        "opset converted to 13",
        "constant weights computed",
        "nodes named",
    ]
    assert [node.op_type for node in normal_model.graph.node] == ["MatMul", "Relu"]
    assert [tensor.name for tensor in normal_model.graph.initializer] == ["W"]
    assert normal_model.metadata_props[0].value == "someone"
    assert normal_model.graph.input == model.graph.input
    assert normal_model.graph.output == model.graph.output


def test_a_step_that_changes_the_answers_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(model)
        spoilt.graph.initializer[0].CopyFrom(numpy_helper.from_array(normal(8, 16, seed=1), "T"))
        return spoilt, True

    monkeypatch.setattr(normalise, "PASSES", (("spoilt", spoil), ("nodes named", names.name_nodes)))
    model = _model()
    result, steps = normalise.normalise(model, _reference(model))
    assert [step.name for step in steps if step.undone] == ["spoilt"]
    assert "output 'y' moved by" in steps[0].undone
    assert result.graph.initializer == model.graph.initializer
    assert result.graph.node[1].name == "MatMul_1"


def test_a_step_that_fails_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        raise RuntimeError("no\nsuch luck")

    monkeypatch.setattr(normalise, "PASSES", (("failing", fail), ("nodes named", names.name_nodes)))
    model = _model()
    _, steps = normalise.normalise(model, _reference(model))
    assert steps == [normalise.Step("failing", "no such luck"), normalise.Step("nodes named")]


def test_operators_that_are_gone_keep_the_opset_old(bench: Bench) -> None:
    nodes = [
        helper.make_node("ImageScaler", ["x"], ["s"], bias=[0.0, 0.0], scale=0.5),
        helper.make_node("MatMul", ["s", "W"], ["y"], "dense"),
    ]
    model = graph(nodes, {"x": (1, 2, 4, 4)}, {"y": None}, {"W": normal(4, 8)}, 8)
    bench.give(model, {"x": normal(6, 1, 2, 4, 4)}, "feeds")
    outcome = bench.run()
    assert "Undone: opset converted to 13, because opset 13 has no ImageScaler." in outcome.said
    assert "INT8 needs opset 11, the model has 8" in outcome.nodes["dense"]["reason"]


def test_constants_in_branches_are_computed_where_they_stand() -> None:
    def branch(label: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Transpose", ["T"], [f"{label}_W"]),
            helper.make_node("MatMul", ["x", f"{label}_W"], [f"{label}_y"]),
        ]
        return helper.make_graph(
            nodes, label, [], [helper.make_tensor_value_info(f"{label}_y", TensorProto.FLOAT, None)]
        )

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["flag"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch("then"), else_branch=branch("else")),
    ]
    model = graph(nodes, {"x": ("n", 16)}, {"y": None}, {"T": normal(8, 16), "zero": np.zeros((), np.float32)})
    folded, modified = constants.fold(model)
    assert modified
    assert "Transpose" not in {node.op_type for node in all_nodes(folded)}
    assert [tensor.name for tensor in folded.graph.initializer] == ["zero"]
    expected, found = (run(sessions.open_session(each), X)["y"] for each in (model, folded))
    np.testing.assert_array_equal(expected, found)


def test_a_weight_computed_from_another_is_computed_too() -> None:
    nodes = [
        helper.make_node("Transpose", ["T"], ["W"]),
        helper.make_node("Transpose", ["W"], ["V"]),
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("MatMul", ["h", "V"], ["y"]),
    ]
    model = graph(nodes, {"x": ("n", 16)}, {"y": None}, {"T": normal(8, 16)})
    folded, _ = constants.fold(model)
    assert {tensor.name for tensor in folded.graph.initializer} == {"W", "V"}
    assert check.difference(folded, _reference(model)) == ""


def test_what_is_no_float_stays_as_it_is() -> None:
    nodes = [
        helper.make_node("Constant", [], ["table"], value_ints=[3, 1, 2]),
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["y"]),
    ]
    assert not constants.fold(graph(nodes, {"x": ("n",)}, {"y": None}, {}))[1]


def test_a_bias_is_computed_too() -> None:
    nodes = [
        helper.make_node("Identity", ["c"], ["b"]),
        helper.make_node("Gemm", ["x", "W", "b"], ["y"]),
    ]
    folded, _ = constants.fold(graph(nodes, {"x": ("n", 16)}, {"y": None}, {"W": normal(16, 8), "c": normal(8)}))
    assert {tensor.name for tensor in folded.graph.initializer} == {"W", "b"}


def test_a_constant_that_another_node_needs_stays() -> None:
    model = _model()
    model.graph.node.append(helper.make_node("Identity", ["T"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (8, 16)))
    folded, _ = constants.fold(model)
    assert {tensor.name for tensor in folded.graph.initializer} == {"T", "W"}
    sessions.open_session(folded)


def test_a_weight_that_is_an_output_too_stays_computed() -> None:
    model = _model()
    model.graph.output.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, (16, 8)))
    assert not constants.fold(model)[1]


def test_random_weights_are_not_computed_beforehand() -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["W"], shape=[16, 8]),
        helper.make_node("MatMul", ["x", "W"], ["y"]),
    ]
    assert not constants.fold(graph(nodes, {"x": ("n", 16)}, {"y": None}, {}))[1]


def test_inputs_listed_on_purpose_stay() -> None:
    model = _model()
    model.graph.initializer.append(numpy_helper.from_array(normal(3), "other"))
    model.graph.input.append(helper.make_tensor_value_info("T", TensorProto.FLOAT, (8, 16)))
    assert not inputs.drop_listed_initializers(model)[1]
    model.ir_version = 3
    dropped, modified = inputs.drop_listed_initializers(model)
    assert modified
    assert [each.name for each in dropped.graph.input] == ["x"]


def test_the_domain_of_microsoft_is_imported_where_it_is_used() -> None:
    model = _model()
    model.graph.node[2].domain = "com.microsoft"
    repaired, _ = opset.repair_imports(model)
    assert [(each.domain, each.version) for each in repaired.opset_import] == [("", 17), ("com.microsoft", 1)]


@given(st.permutations(range(6)))
def test_sorting_puts_nodes_behind_what_they_need(order: list[int]) -> None:
    chain = [helper.make_node("Relu", [f"h{at}"], [f"h{at + 1}"], f"n{at}") for at in range(6)]
    shuffled = helper.make_graph([chain[at] for at in order], "g", [], [])
    sort_nodes(shuffled)
    assert [node.name for node in shuffled.node] == [f"n{at}" for at in range(6)]


def test_fresh_names_are_free_in_every_graph() -> None:
    model = _model()
    free = Names(model)
    assert [free.fresh("W"), free.fresh("W"), free.fresh("new"), free.fresh("new")] == ["W_1", "W_2", "new", "new_1"]


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
    assert "sparse weights made dense" in outcome.said
    assert outcome.cosine(x) > 0.999


_CUT = """<ir_version: 8, opset_import: ["" : 17]>
attention (float[n, t, {width}] x) => (float[n, t, m] y)
<int64 last = {{{index}}}, int64[1] zero = {{0}}, int64 two = {{2}}, int64[1] first = {{0}}, int64[1] over = {{9}}> {{
    shape = Shape(x)
    {pick}
    half = Div(number, two)
    column = Unsqueeze(half, zero)
    part = Slice(T, zero, column, zero)
    W = Transpose<perm = [1, 0]>(part)
    y = MatMul(x, W)
}}"""


@pytest.mark.parametrize(
    ("width", "index", "pick", "folded"),
    [
        ("32", 2, "number = Gather(shape, last)", True),
        ("32", -1, "number = Gather(shape, last)", True),
        ("32", 0, "rest = Slice(shape, two_, over)\n    number = Squeeze(rest, zero)", True),
        ("32", 0, "rest = Shape<start = 2>(x)\n    number = Squeeze(rest, zero)", True),
        ("w", 2, "number = Gather(shape, last)", False),
        ("32", 1, "number = Gather(shape, last)", False),
    ],
)
def test_a_weight_that_is_cut_by_a_fixed_size_is_a_constant(width: str, index: int, pick: str, folded: bool) -> None:
    """As torch's MultiheadAttention does; where the size differs from run to run the weight does, too."""
    model = onnx.parser.parse_model(_CUT.format(width=width, index=index, pick=pick))
    model.graph.initializer.append(numpy_helper.from_array(normal(64, 32), "T"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "two_"))
    result, modified = constants.fold(model)
    assert modified == folded
    assert ("W" in {tensor.name for tensor in result.graph.initializer}) == folded
    for tokens in (4, 6):
        x = {"x": normal(2, tokens, 32)}
        expected, found = (run(sessions.open_session(each), x)["y"] for each in (model, result))
        np.testing.assert_array_equal(expected, found)


def test_reading_the_shape_of_a_weight_is_no_use_of_it() -> None:
    nodes = [helper.make_node("Shape", ["W"], ["s"], "shape"), helper.make_node("MatMul", ["x", "W"], ["y"], "dense")]
    model = graph(nodes, {"x": ("n", 16)}, {"y": ("n", 8)}, {"W": normal(16, 8)})
    assert [node.name for node in weighted_nodes(model)] == ["dense"]


def _fused(op_type: str, inputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, ["y"], "work", domain="com.microsoft", **attributes)


@pytest.mark.parametrize(
    ("node", "op_types"),
    [
        (_fused("FusedMatMul", ["x", "M"], transB=1, alpha=0.5), ["MatMul"]),
        (_fused("FusedMatMul", ["x", "S"], transB=1), ["MatMul"]),
        (_fused("FusedMatMul", ["x", "M"], transA=1), None),
        (_fused("FusedMatMul", ["M", "x"], transB=1), None),
        (_fused("FusedGemm", ["x", "M", "b"], transB=1, activation="Relu"), ["Gemm", "Relu"]),
        (
            _fused("FusedGemm", ["x", "M", "b"], transB=1, alpha=2.0, activation="LeakyRelu", activation_alpha=0.3),
            ["Gemm", "LeakyRelu"],
        ),
        (_fused("FusedConv", ["image", "K"], activation="Tanh", pads=[1, 1, 1, 1]), ["Conv", "Tanh"]),
        (
            _fused("FusedConv", ["image", "K", "k", "image"], activation="Relu", pads=[1, 1, 1, 1]),
            ["Conv", "Add", "Relu"],
        ),
        (
            _fused("FusedConv", ["image", "K"], activation="HardSigmoid", activation_params=[0.3, 0.4]),
            ["Conv", "HardSigmoid"],
        ),
    ],
)
def test_what_the_optimiser_fused_is_taken_apart(node: onnx.NodeProto, op_types: list[str] | None) -> None:
    weights = {
        "M": normal(16, 16),
        "S": normal(2, 8, 16),
        "b": normal(16),
        "K": normal(3, 3, 3, 3),
        "k": normal(3),
    }
    shape = {"image": (2, 3, 8, 8)} if "image" in node.input else {"x": (16, 16)}
    used = {name: each for name, each in weights.items() if name in node.input}
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = graph([node], shape, {"y": None}, used, opset_imports=imports)
    apart, modified = fused.take_apart(model)
    assert modified == (op_types is not None)
    if op_types is None:
        return
    apart, _ = constants.fold(apart)
    assert [each.op_type for each in apart.graph.node] == op_types
    assert apart.graph.node[0].name == "work"
    feed = {name: normal(*dims) for name, dims in shape.items()}
    expected, found = (run(sessions.open_session(each), feed)["y"] for each in (model, apart))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
