"""Sentence vectors from a small transformer in ONNX, trained on the texts that come with scikit-learn's data sets.

Word vectors are learnt from co-occurrences, attention follows their similarity, and the feed-forward layer has random
features and a ridge regression that predicts the vector of the passage that follows. It needs no deep learning
framework; a sentence encoder that PyTorch trained is treated alike.
"""

import re

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from sklearn import datasets
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import Ridge

WIDTH, HIDDEN, LENGTH, STRIDE = 64, 256, 16, 4
INPUTS = ("input_ids", "attention_mask")
TEXTS = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")


def build(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Train on all passages.

    Returns:
        The ONNX model, and its inputs: `input_ids` and `attention_mask`, int64 [passages, 16], padded on the right.
    """
    random = np.random.default_rng(seed)
    documents = [re.findall(r"[a-z]+", getattr(datasets, f"load_{name}")().DESCR.lower()) for name in TEXTS]
    words = sorted({word for document in documents for word in document})
    numbered = [np.array([1 + words.index(word) for word in document]) for document in documents]
    weights = {"E": _word_vectors(numbered, len(words) + 1, seed)}
    for name in ("Wq", "Wk", "Wv", "Wo"):
        weights[name] = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    weights["Wk"] = weights["Wq"]  # so that similar words attend to each other
    weights["W1"] = (random.normal(size=(WIDTH, HIDDEN)) / 8).astype(np.float32)
    starts = [(ids, at) for ids in numbered for at in range(0, len(ids) - 2 * LENGTH, STRIDE)]
    feed = _padded([ids[at : at + length] for (ids, at), length in zip(starts, _lengths(random, starts), strict=True)])
    after = np.array([weights["E"][ids[at + LENGTH : at + 2 * LENGTH]].mean(axis=0) for ids, at in starts])
    weights["W2"] = np.zeros((HIDDEN, WIDTH), np.float32)
    session = ort.InferenceSession(_model(weights, "features").SerializeToString())
    features = session.run(None, feed)[0]
    weights["W2"] = Ridge(1.0, fit_intercept=False).fit(features, after).coef_.T.astype(np.float32)
    return _model(weights, "sentence"), feed


def _lengths(random: np.random.Generator, starts: list[tuple[np.ndarray, int]]) -> np.ndarray:
    return random.integers(5, LENGTH + 1, len(starts))


def _padded(passages: list[np.ndarray]) -> dict[str, np.ndarray]:
    ids = np.zeros((len(passages), LENGTH), np.int64)
    for row, passage in zip(ids, passages, strict=True):
        row[: len(passage)] = passage
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}


def _word_vectors(documents: list[np.ndarray], count: int, seed: int) -> np.ndarray:
    """Positive pointwise mutual information of words at most four apart, in `WIDTH` dimensions: float32 [count, 64]."""
    pairs = np.ones((count, count)) * 1e-3
    for ids in documents:
        for distance in range(1, 5):
            np.add.at(pairs, (ids[:-distance], ids[distance:]), 1)
    pairs += pairs.T
    shares = pairs / pairs.sum()
    information = np.log(shares / np.outer(shares.sum(0), shares.sum(1))).clip(0)
    vectors = TruncatedSVD(WIDTH, random_state=seed).fit_transform(information)
    return (vectors / vectors.std()).astype(np.float32)


def _model(weights: dict[str, np.ndarray], output: str) -> onnx.ModelProto:
    constants = {
        "ones": np.ones(WIDTH, np.float32), "eighth": np.float32(0.125), "far": np.float32(1e4), "one": np.float32(1),
        "axis1": np.array([1]), "axis2": np.array([2]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Gather", ["E", "input_ids"], ["h"], "embed"),
        *(node("MatMul", ["h", f"W{name}"], [name], f"attention/{name}") for name in "qkv"),
        node("Transpose", ["k"], ["kT"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kT"], ["qk"]),
        node("Mul", ["qk", "eighth"], ["scaled"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Sub", ["mask", "one"], ["hidden"]),
        node("Mul", ["hidden", "far"], ["bias"]),
        node("Unsqueeze", ["bias", "axis1"], ["bias3"]),
        node("Add", ["scaled", "bias3"], ["masked"]),
        node("Softmax", ["masked"], ["attended"], axis=-1),
        node("MatMul", ["attended", "v"], ["mixed"]),
        node("MatMul", ["mixed", "Wo"], ["o"], "attention/o"),
        node("Add", ["h", "o"], ["sum"]),
        node("LayerNormalization", ["sum", "ones"], ["normed"]),
        node("MatMul", ["normed", "W1"], ["wide"], "feed/1"),
        node("Relu", ["wide"], ["relu"]),
        node("MatMul", ["relu", "W2"], ["narrow"], "feed/2"),
        node("Unsqueeze", ["mask", "axis2"], ["mask3"]),
        node("ReduceSum", ["mask3", "axis1"], ["length"], keepdims=0),
        *(
            step
            for name, source in (("features", "relu"), ("pooled", "narrow"))
            for step in (
                node("Mul", [source, "mask3"], [f"{name}_kept"]),
                node("ReduceSum", [f"{name}_kept", "axis1"], [f"{name}_sum"], keepdims=0),
                node("Div", [f"{name}_sum", "length"], [name]),
            )
        ),
        node("LpNormalization", ["pooled"], ["sentence"], axis=1, p=2),
    ]
    if output == "sentence":
        nodes = [node for node in nodes if not node.output[0].startswith("features")]
    width = {"features": HIDDEN, "sentence": WIDTH}[output]
    graph = helper.make_graph(
        nodes,
        "sentences",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "words"]) for name in INPUTS],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(array, name) for name, array in {**weights, **constants}.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
