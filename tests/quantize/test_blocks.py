"""Block-wise quantization, compared with how ONNX Runtime's kernels read the bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from stages.common.model import sessions
from stages.quantize.methods.weight_only import blocks as blockwise

shapes = st.tuples(st.integers(1, 20), st.integers(1, 150))
bits = st.sampled_from([4, 8])
sizes = st.sampled_from([16, 32, 64])


def weights(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(shapes, bits, sizes, st.booleans(), st.integers(0, 99))
def test_no_weight_moves_by_more_than_a_step(
    shape: tuple[int, int], bits: int, size: int, symmetric: bool, seed: int
) -> None:
    matrix = weights(shape, seed)
    blocks = blockwise.quantize(matrix, bits, size, symmetric)
    step = np.repeat(np.abs(blocks.scales), size, axis=1)[:, : shape[1]]
    # Rounding moves a weight by half a step; the end of a range that has no level moves by up to a whole step.
    assert np.all(np.abs(blockwise.dequantize(blocks) - matrix) <= step * 1.001)
    assert blocks.stored.max() < 2**bits


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zero_and_the_extreme_is_met(bits: int, symmetric: bool) -> None:
    matrix = np.zeros((2, 32), np.float32)
    matrix[1, 5] = 3.0
    np.testing.assert_allclose(blockwise.dequantize(blockwise.quantize(matrix, bits, 16, symmetric)), matrix, rtol=1e-6)


@given(shapes, bits, sizes, st.booleans(), st.integers(0, 99))
def test_matmulnbits_reads_the_same_weights(
    shape: tuple[int, int], bits: int, size: int, symmetric: bool, seed: int
) -> None:
    matrix = weights(shape, seed)
    blocks = blockwise.quantize(matrix, bits, size, symmetric)
    constants = {"w": blockwise.packed(blocks.stored, bits), "s": blocks.scales}
    if blocks.zero_points is not None:
        constants["z"] = blockwise.packed(blocks.zero_points, bits)
    node = helper.make_node(
        "MatMulNBits", ["x", *constants], ["y"], domain="com.microsoft",
        K=shape[1], N=shape[0], bits=bits, block_size=size, accuracy_level=1,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [shape[1], shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[1], shape[0]])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    session = sessions.open_session(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    seen = sessions.run(session, {"x": np.eye(shape[1], dtype=np.float32)}, name="the model")[0]
    np.testing.assert_allclose(seen.T, blockwise.dequantize(blocks), rtol=1e-5, atol=1e-6)
