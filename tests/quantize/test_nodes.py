"""`quantize.nodes`: each node by its own method and type, in one file."""

import numpy as np
import pytest

from stages.common.base import paths
from stages.common.base.errors import ParamsError, StageError
from stages.common.base.params import Quantize
from tests.quantize import nets
from tests.quantize.nets import net, node, normal
from tests.quantize.running import Bench

DATA = {"x": normal(80, 64)}


def test_one_file_mixes_every_way(bench: Bench) -> None:
    bench.give(nets.mlp((64, 96, 96, 96, 96, 32)), DATA)
    outcome = bench.run(
        nodes={
            "MatMul_p0": {"method": "float"},
            "MatMul_p[12]": {"method": "static"},
            "MatMul_p2": {"per_channel": False},
            "MatMul_p3": {"activation_scale": "row"},
            "MatMul_p4": {"method": "weight_only", "weight_type": "QInt4"},
        }
    )
    rows = {name: (row["quantized"], row["how"]) for name, row in outcome.nodes.items()}
    assert rows == {
        "MatMul_p0": ("false", ""),
        "MatMul_p1": ("true", "QInt8 per channel, activations QUInt8"),
        "MatMul_p2": ("true", "QInt8 per tensor, activations QUInt8"),
        "MatMul_p3": ("true", "QInt8 per channel, activations per row"),
        "MatMul_p4": ("true", "4 bits in symmetric blocks of 32"),
    }
    assert outcome.nodes["MatMul_p0"]["reason"] == "matches 'MatMul_p0' of quantize.nodes, which keeps it float"
    assert outcome.metrics["nodes"] == {"quantizable": 5, "quantized": 4, "kept_float": 1}
    kernels = nets.kernels(outcome.int8_model)
    assert kernels["MatMulNBits"] == 1
    assert kernels["QGemm"] == 2
    assert kernels["MatMulIntegerToFloat"] == 1
    assert outcome.cosine({"x": DATA["x"][:8]}) > 0.98


def test_a_convolution_is_static_where_the_rest_is_dynamic(bench: Bench) -> None:
    bench.give(nets.conv_net(), {"x": normal(60, 1, 16, 16)})
    outcome = bench.run(nodes={"Conv*": {"method": "static"}, "Gemm_y": {"activation_scale": "row"}})
    assert outcome.quantized() == {"Conv_c0", "Conv_c1", "Conv_c2", "Gemm_y"}
    assert nets.kernels(outcome.int8_model)["QLinearConv"] == 3


def test_a_named_method_quantizes_what_it_leaves_out_by_default(bench: Bench) -> None:
    bench.give(nets.conv_net(), {"x": normal(60, 1, 16, 16)})
    assert "Conv_c1" in bench.run(nodes={"Conv_c1": {"method": "dynamic"}}).quantized()
    outcome = bench.run(nodes={"*": {"method": "weight_only"}})
    assert outcome.nodes["Conv_c1"]["reason"] == "quantize.method weight_only does not quantize Conv"


def test_excluded_nodes_stay_float_whatever_else_is_said_of_them(bench: Bench) -> None:
    bench.give(nets.mlp((64, 96, 32)), DATA)
    outcome = bench.run(exclude_nodes=["MatMul_p0"], nodes={"*": {"activation_scale": "row"}})
    assert outcome.quantized() == {"MatMul_p1"}


def test_a_pattern_that_matches_nothing_is_an_error_with_near_names(bench: Bench) -> None:
    bench.give(nets.mlp((64, 96, 32)), DATA)
    with pytest.raises(StageError, match=r"quantize\.nodes names 'MatMul_q0', which .* Did you mean 'MatMul_p0'"):
        bench.run(nodes={"MatMul_q0": {"per_channel": False}})
    assert not paths.INT8_MODEL.exists()


def test_four_bits_are_for_weight_only_in_overrides_too() -> None:
    with pytest.raises(ParamsError, match=r"quantize\.nodes\.a\.weight_type is QInt4.* static takes QInt8 or QUInt8"):
        Quantize(nodes={"a": {"method": "static", "weight_type": "QInt4"}})  # type: ignore[dict-item]
    Quantize(nodes={"a": {"method": "weight_only", "weight_type": "QInt4"}})  # type: ignore[dict-item]


def test_rows_need_opset_13_and_the_file_is_converted_only_then(bench: Bench) -> None:
    model = net([node("MatMul", "x W", "y")], {"x": ["N", 64]}, {"y": ["N", 48]}, {"W": normal(64, 48)}, opset=11)
    bench.give(model, DATA)
    assert bench.run().int8_model.opset_import[0].version == 11
    outcome = bench.run(nodes={"MatMul_y": {"activation_scale": "row"}})
    assert outcome.int8_model.opset_import[0].version == 13
    assert "opset converted to 13" in outcome.said
    assert np.isfinite(outcome.cosine({"x": DATA["x"][:4]}))
