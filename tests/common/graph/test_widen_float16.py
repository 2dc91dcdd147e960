"""Float16 models are quantized by way of float32, and keep their interface."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from stages.common.graph.passes import widen_float16
from stages.common.model import ir_conversion, sessions
from stages.quantize import preparation
from tests.onnx_models import applied, ir_model, opened, reference
from tests.quantize import nets
from tests.quantize.nets import net, node, normal

HALF = TensorProto.FLOAT16


def halved(model: ModelProto, ends: bool = True) -> ModelProto:
    """The same net in float16: with float16 inputs and outputs, or behind casts."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    if ends:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = HALF
        return model
    for user in model.graph.node:
        for field in (user.input, user.output):
            for index, name in enumerate(field):
                field[index] = f"{name}_half" if name in ("x", "y") else name
    model.graph.node.insert(0, node("Cast", "x", "x_half", to=HALF))
    model.graph.node.append(node("Cast", "y_half", "y", to=TensorProto.FLOAT))
    return model


def half_feeds(model: ModelProto) -> list[sessions.Feed]:
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    dtypes = {name: helper.tensor_dtype_to_np_dtype(kind) for name, kind in types.items()}
    return [{name: x.astype(dtypes[name]) for name, x in feed.items()} for feed in nets.feeds(model)]


def interface(model: ModelProto) -> list[tuple[str, str, str]]:
    session = opened(model)
    return [(end.name, end.type, str(end.shape)) for end in (*session.get_inputs(), *session.get_outputs())]


@pytest.mark.parametrize("method", ["dynamic", "static", "weight_only"])
@pytest.mark.parametrize("ends", [True, False])
def test_every_method_quantizes_a_float16_model(method: str, ends: bool) -> None:
    model = halved(nets.mlp((64, 96, 64)), ends)
    given = half_feeds(model)
    wide, steps = preparation.converted(ir_model(model), reference(model, given[:4]), 13)
    assert [(step.name, step.undone) for step in steps] == [("float16 converted to float32", "")]
    quantized, outcomes = nets.quantized(ir_conversion.to_proto(wide), given, method=method)
    assert all(outcome.quantized for outcome in outcomes.values())
    assert interface(quantized) == interface(model)
    assert nets.sqnr_db(model, quantized, given) > 25


def test_constants_types_and_subgraphs_are_widened() -> None:
    def branch(name: str) -> helper.GraphProto:
        return helper.make_graph(
            [node("MatMul", "x W", f"{name}_product"), node("Add", f"{name}_product c", name)],
            name, [], [helper.make_tensor_value_info(name, HALF, ["N", 8])],
        )  # fmt: skip

    nodes = [
        node("Constant", "-", "c", value=numpy_helper.from_array(np.full(8, 0.5, np.float16))),
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Cast", "sum", "flag", to=TensorProto.BOOL),
        helper.make_node("If", ["flag"], ["z"], name="If", then_branch=branch("a"), else_branch=branch("b")),
        node("Shape", "z", "shape"),
        node("ConstantOfShape", "shape", "ones", value=helper.make_tensor("one", HALF, [1], [1.0])),
        node("Add", "z ones", "y"),
    ]
    nodes[0].ClearField("input")
    model = halved(net(nodes, {"x": ["N", 16]}, {"y": ["N", 8]}, {"W": normal(16, 8)}))
    wide, modified = applied(widen_float16.apply, model)
    assert modified
    assert interface(wide) == interface(model)
    assert nets.sqnr_db(model, wide, half_feeds(model)) > 50


def test_a_tensor_that_is_input_and_output_at_once_keeps_both_names() -> None:
    nodes = [node("MatMul", "x W", "h"), node("MatMul", "h V", "y")]
    shape = ("N", 16)
    model = halved(net(nodes, {"x": shape}, {"h": shape, "y": shape}, {"W": normal(16, 16), "V": normal(16, 16)}))
    wide, _ = applied(widen_float16.apply, model)
    assert interface(wide) == interface(model)
    assert nets.sqnr_db(model, wide, half_feeds(model)) > 50


def test_models_without_float16_weights_are_left_alone() -> None:
    for model in (nets.mlp(), net([node("Abs", "x", "y")], {"x": ["N"]}, {"y": ["N"]}, {})):
        assert not applied(widen_float16.apply, model)[1]
    scalar = net([node("Add", "x one", "y")], {"x": ["N"]}, {"y": ["N"]}, {"one": np.ones((), np.float32)})
    assert applied(widen_float16.apply, halved(scalar))[1] is False


@pytest.mark.parametrize("ends", [True, False])
def test_the_model_that_was_cloned_stays_in_float16(ends: bool) -> None:
    source = ir_model(halved(nets.mlp((64, 96, 64)), ends))
    before = ir_conversion.to_proto(source)
    assert widen_float16.apply(source.clone()).modified
    assert ir_conversion.to_proto(source) == before
