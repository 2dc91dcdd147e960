"""Messages of ONNX Runtime, made readable."""

import pytest
from onnx import TensorProto, helper

from stages.common.base.errors import StageError
from stages.common.model import sessions


def test_a_custom_operator_is_named_with_the_remedy() -> None:
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Mine", [], ["y"], domain="my.ops")], "g", [], [out])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    with pytest.raises(StageError, match=r"cannot load mine\.onnx: .*my\.ops:Mine.* custom ones are not loaded"):
        sessions.open_session(model.SerializeToString(), name="mine.onnx")


def test_nodes_of_one_name_are_refused_with_the_remedy() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    nodes = [helper.make_node("Neg", ["x"], ["h"], "same"), helper.make_node("Neg", ["h"], ["y"], "same")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(StageError, match=r"two nodes with same node name \(same\)\. Give each node a unique name"):
        sessions.open_session(model.SerializeToString(), name="mine.onnx")


def test_a_missing_locale_is_told_with_the_commands_that_install_it() -> None:
    """StringNormalizer, which skl2onnx writes for a vectorizer that lower-cases, makes a locale when it is loaded."""
    ends = [helper.make_tensor_value_info(name, TensorProto.STRING, [None]) for name in ("x", "y")]
    node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="xx_YY.UTF-8")
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(StageError, match=r"needs the locale xx_YY\.UTF-8, .* -i xx_YY -f UTF-8 xx_YY\.UTF-8\)"):
        sessions.open_session(model.SerializeToString(), name="mine.onnx")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/x.onnx failed:No graph.", "No graph"),
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: /src/a/b.cc:235 "
            "onnx::Locale(const std::string&)::<lambda()> Failed to construct locale",
            "Failed to construct locale",
        ),
        (
            "Failed to construct locale with name:en_US.UTF-8:locale::facet::_S_create_c_locale name not valid:Please, "
            "install necessary language-pack-XX and configure locales",
            "Failed to construct locale with name: en_US.UTF-8",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Status Message: /src/attention_helper.h:70 onnxruntime::common::Status "
            "onnxruntime::helper::Shape(const onnxruntime::Tensor*, std::function<void(int)>, bool) const [with T = "
            "float] attn_mask == nullptr || Mask() == 2 was false. inconsistent length (of attn_mask and Q)",
            "Status Message: attn_mask == nullptr || Mask() == 2 was false. inconsistent length (of attn_mask and Q)",
        ),
        ("/src/a.cc:12 No place for (this)", "/src/a.cc:12 No place for (this)"),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got\n invalid dimensions", "Got invalid dimensions"),
    ],
)
def test_codes_places_and_line_breaks_are_left_out(raw: str, words: str) -> None:
    assert sessions.ort_message(RuntimeError(raw)) == words


def test_two_threads_stop_spinning_between_runs() -> None:
    assert sessions.session_options(2).get_session_config_entry("session.force_spinning_stop") == "1"
    assert sessions.session_options(2).intra_op_num_threads == 2
