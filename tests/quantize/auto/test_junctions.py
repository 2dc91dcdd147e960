"""The tensors between nodes with a choice."""

from stages.common.model.ir_conversion import from_proto
from stages.quantize.auto import junctions
from tests.quantize import nets


def test_a_convolution_net_is_cut_into_its_tensors() -> None:
    graph = from_proto(nets.conv_net()).graph
    between = junctions.between(graph)
    weighted = [node.name or "" for node in graph if node.op_type in ("Conv", "Gemm")]
    found = junctions.tensors(graph, [*weighted, *between])
    assert between == ["Add_r", "GlobalAveragePool_g"]
    ends = {(tensor.producers, tensor.consumers): tensor.open for tensor in found}
    assert ends == {
        ((), ("Conv_c0",)): True,
        (("Conv_c0",), ("Conv_c1", "Add_r")): False,  # MaxPool and Relu hand on what they are given
        (("Conv_c1",), ("Conv_c2",)): False,
        (("Conv_c2",), ("Add_r",)): False,
        (("Add_r",), ("GlobalAveragePool_g",)): False,
        (("GlobalAveragePool_g",), ("Gemm_y",)): False,
        (("Gemm_y",), ()): True,
    }


def test_what_something_else_reads_too_is_open() -> None:
    graph = from_proto(nets.mlp((4, 4, 4))).graph
    weighted = [node.name or "" for node in graph if node.op_type == "MatMul"]
    found = junctions.tensors(graph, weighted)
    assert all(tensor.open for tensor in found)
    assert [tensor.consumers for tensor in found if tensor.consumers] == [("MatMul_p0",), ("MatMul_p1",)]
