import numpy as np
from onnx import TensorProto, helper, numpy_helper

from stages.common.model import sessions
from stages.quantize.auto.one_node import cut_out
from tests.onnx_models import ir_model
from tests.quantize import nets


def test_a_node_is_cut_out_with_the_outputs_that_nobody_reads() -> None:
    """EmbedLayerNormalization demands its second one."""
    tables = {"word": nets.normal(20, 16), "place": nets.normal(8, 16), "g": np.ones(16, "f"), "b": np.zeros(16, "f")}
    node = helper.make_node(
        "EmbedLayerNormalization", ["ids", "", "word", "place", "", "g", "b"], ["y", "m"], domain="com.microsoft"
    )
    graph = helper.make_graph(
        [node],
        "embed",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, [2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8, 16])],
        [numpy_helper.from_array(array, name) for name, array in tables.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = ir_model(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    ids = np.arange(16, dtype=np.int32).reshape(2, 8)
    (expected,) = sessions.run(sessions.open_session(model, name="the model"), {"ids": ids}, name="the model")
    single = cut_out(model, model.graph[0], [{"ids": ids, "y": expected}])
    session = sessions.open_session(single.model, name="the node")
    np.testing.assert_array_equal(sessions.run(session, {"ids": ids}, name="the node")[0], expected)
