"""States that no iteration changes are read from outside the loop, so that weights among them are weights."""

import numpy as np
from onnx import ModelProto, TensorProto, helper

from stages.common.graph.passes import unchanged_states
from tests.onnx_models import applied, opened
from tests.quantize.running import graph, normal, run

X = {"x": normal(4, 16), "rows": normal(4, 3, 16)}


def _values(**shapes: list[str | int] | None) -> list[object]:
    kinds = {"i": TensorProto.INT64, "more": TensorProto.BOOL, "still": TensorProto.BOOL}
    return [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), s) for name, s in shapes.items()]


def while_loop(returned: str = "w_same") -> ModelProto:
    """A loop as tf2onnx writes it: the weight is a state, which the body returns through Identity."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["a"], "recurrent"),
            helper.make_node("Tanh", ["a"], ["h_next"]),
            helper.make_node("Identity", ["w"], ["w_same"]),
            helper.make_node("Neg", ["w"], ["w_other"]),
            helper.make_node("Identity", ["more"], ["still"]),
        ],
        "body",
        _values(i=[], more=[], w=None, h=["n", 16]),
        [
            *_values(still=[]),
            helper.make_tensor_value_info(returned, TensorProto.FLOAT, None),
            *_values(h_next=["n", 16], a=["n", 16]),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["times", "", "W", "x"], ["W_last", "h_last", "all"], "loop", body=body),
        helper.make_node("MatMul", ["h_last", "W_last"], ["y"], "last"),
    ]
    weights = {"W": normal(16, 16) / 4, "times": np.array(3, np.int64)}
    return graph(nodes, {"x": ("n", 16)}, {"y": ("n", 16), "all": (3, "n", 16)}, weights)


def scan() -> ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["h", "row"], ["s"]),
            helper.make_node("MatMul", ["s", "w"], ["h_next"]),
            helper.make_node("Relu", ["h_next"], ["step"]),
            helper.make_node("Identity", ["w"], ["w_same"]),
        ],
        "body",
        _values(w=[16, 16], h=["n", 16], row=["n", 16]),
        _values(w_same=[16, 16], h_next=["n", 16], step=["n", 16]),
    )
    nodes = [
        helper.make_node("Transpose", ["T"], ["W"]),
        helper.make_node(
            "Scan", ["W", "x", "rows"], ["W_last", "h", "y"], body=body, num_scan_inputs=1, scan_input_axes=[1],
            scan_output_axes=[1],
        ),
    ]  # fmt: skip
    inputs = {"x": ("n", 16), "rows": ("n", 3, 16)}
    return graph(nodes, inputs, {"h": ("n", 16), "y": ("n", 3, 16)}, {"T": normal(16, 16) / 4})


def _equal(one: ModelProto, other: ModelProto) -> None:
    before, after = (opened(model) for model in (one, other))
    feed = {value.name: X[value.name] for value in before.get_inputs()}
    for name, answer in run(before, feed).items():
        np.testing.assert_array_equal(answer, run(after, feed)[name])


def test_a_weight_that_is_a_state_of_a_loop_is_read_from_outside() -> None:
    cleaned, modified = applied(unchanged_states.apply, while_loop())
    assert modified
    loop = cleaned.graph.node[0]
    assert (list(loop.input), list(loop.output)) == (["times", "", "x"], ["h_last", "all"])
    assert cleaned.graph.node[1].input[1] == "W"
    body = loop.attribute[0].g
    assert [value.name for value in body.input] == ["i", "more", "h"]
    assert [value.name for value in body.output] == ["still", "h_next", "a"]
    _equal(while_loop(), cleaned)


def test_a_state_that_changes_stays() -> None:
    _, modified = applied(unchanged_states.apply, while_loop("w_other"))
    assert not modified


def test_a_state_that_the_model_outputs_stays() -> None:
    model = while_loop()
    model.graph.output.extend([helper.make_tensor_value_info("W_last", TensorProto.FLOAT, None)])
    _, modified = applied(unchanged_states.apply, model)
    assert not modified


def test_a_state_that_is_also_collected_stays() -> None:
    model = while_loop("w")
    body = model.graph.node[0].attribute[0].g
    body.output[3].CopyFrom(body.input[2])
    model.graph.output[1].CopyFrom(helper.make_tensor_value_info("all", TensorProto.FLOAT, None))
    _, modified = applied(unchanged_states.apply, model)
    assert not modified


def test_a_scan_keeps_its_sequences() -> None:
    cleaned, modified = applied(unchanged_states.apply, scan())
    assert modified
    assert [list(node.input) for node in cleaned.graph.node] == [["T"], ["x", "rows"]]
    _equal(scan(), cleaned)


def test_a_loop_in_a_loop_is_freed_too() -> None:
    inner = while_loop().graph.node[0]
    inner.input[0] = "twice"
    inner.input[2:] = ["v", "g"]
    body = helper.make_graph(
        [
            inner,
            helper.make_node("Identity", ["more_2"], ["still_2"]),
            helper.make_node("Identity", ["v"], ["v_same"]),
        ],
        "outer",
        [*_values(i=[]), helper.make_tensor_value_info("more_2", TensorProto.BOOL, []), *_values(v=None, g=None)],
        [helper.make_tensor_value_info("still_2", TensorProto.BOOL, []), *_values(v_same=None, h_last=None)],
    )
    body.input[0].name = "j"
    nodes = [helper.make_node("Loop", ["times", "", "W", "x"], ["v_last", "y"], "outer", body=body)]
    weights = {"W": normal(16, 16) / 4, "times": np.array(3, np.int64), "twice": np.array(2, np.int64)}
    model = graph(nodes, {"x": ("n", 16)}, {"y": ("n", 16)}, weights)
    cleaned, modified = applied(unchanged_states.apply, model)
    assert modified
    outer = cleaned.graph.node[0]
    assert list(outer.input) == ["times", "", "x"]
    assert list(outer.attribute[0].g.node[0].input) == ["twice", "", "g"]
    _equal(model, cleaned)
