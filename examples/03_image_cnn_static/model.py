"""Handwritten digits through a small CNN in ONNX: filters learnt by k-means on patches, a linear classifier on top.

The recipe is that of Coates, Ng and Lee (AISTATS 2011). It needs no deep learning framework; a CNN that PyTorch trained
is treated alike.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.cluster import MiniBatchKMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

FIRST, SECOND = 32, 96
"""Filters of the two layers."""


def build(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray], np.ndarray]:
    """Train on the first half of the digits.

    Returns:
        The ONNX model, the second half of the digits (float32, [899, 1, 8, 8]) and their labels.
    """
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.float32) / 16
    first = _filters(images[:898], FIRST, seed)
    hidden = _convolved(images[:898], *first)
    hidden = hidden.reshape(898, FIRST, 4, 2, 4, 2).mean(axis=(3, 5))
    second = _filters(hidden, SECOND, seed)
    features = _convolved(hidden, *second).reshape(898, -1)
    top = RidgeClassifier(alpha=10.0).fit(features, labels[:898])
    weights = {
        "W1": first[0],
        "b1": first[1],
        "W2": second[0],
        "b2": second[1],
        "W3": top.coef_.T.astype(np.float32),
        "b3": top.intercept_.astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "W1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("AveragePool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "W2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["f"]),
        helper.make_node("Gemm", ["f", "W3", "b3"], ["scores"], "top"),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return model, {"image": images[898:]}, labels[898:]


def _filters(images: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Filters [count, channels, 3, 3] that look for the centres of clusters of patches, and their biases."""
    patches = _patches(images).reshape(-1, images.shape[1] * 9)
    patches = patches[np.random.default_rng(seed).permutation(len(patches))[:20000]]
    centres = MiniBatchKMeans(count, random_state=seed, n_init=1).fit(patches).cluster_centers_
    centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-6
    weights = centres.reshape(count, images.shape[1], 3, 3).astype(np.float32)
    return weights, np.full(count, -(patches @ centres.T).mean(), np.float32)


def _convolved(images: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Convolution and ReLU: float32 [samples, filters, height, width]."""
    products = _patches(images) @ weights.reshape(len(weights), -1).T + bias
    return np.maximum(products, 0).transpose(0, 3, 1, 2).astype(np.float32)


def _patches(images: np.ndarray) -> np.ndarray:
    """The surroundings of each pixel: [samples, height, width, channels * 9]."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(*windows.shape[:1], *windows.shape[2:4], -1)
