"""Small models for the tests, as `export.source` names them: tests.sources:forest."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

Built = tuple[Any, Any, Any]


def forest(seed: int) -> Built:
    """A forest: nothing in it can be quantized."""
    x, y = load_breast_cancer(return_X_y=True)
    return RandomForestClassifier(20, random_state=seed).fit(x[:300], y[:300]), x[300:].astype(np.float32), y[300:]


def small_mlp(seed: int) -> Built:
    """A small MLP, 64-64-10."""
    x, y = load_digits(return_X_y=True)
    model = make_pipeline(MinMaxScaler(), MLPClassifier((64,), tol=1e-2, n_iter_no_change=2, random_state=seed))
    return model.fit(x[:1000], y[:1000]), x[1000:].astype(np.float32), y[1000:]


def regressor() -> Built:
    """A regressor with one unbounded output."""
    x, y = load_diabetes(return_X_y=True)
    model = make_pipeline(
        StandardScaler(),
        MLPRegressor(hidden_layer_sizes=(64,), max_iter=400, tol=10.0, n_iter_no_change=3, random_state=0),
    )
    return model.fit(x[:300], y[:300]), x[300:].astype(np.float32), y[300:]


def text_labels() -> Built:
    """A classifier whose decisions are words."""
    x, y = load_breast_cancer(return_X_y=True)
    words = np.array(["malignant", "benign"])[y]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[:300], words[:300])
    return model, x[300:].astype(np.float32), words[300:]


def data_frame() -> tuple[Any, Any, Any]:
    """A pipeline on a data frame with a float, a text and an integer column."""
    import pandas as pd

    random = np.random.default_rng(0)
    columns = {
        "age": random.normal(40, 9, 200),
        "city": random.choice(["Bern", "Ulm"], 200),
        "rooms": random.integers(1, 6, 200),
    }
    frame = pd.DataFrame(columns)
    price = (frame["age"] + 9 * (frame["city"] == "Ulm") + frame["rooms"] > 45).to_numpy().astype(int)
    prepare = ColumnTransformer(
        [("number", StandardScaler(), ["age", "rooms"]), ("word", OneHotEncoder(sparse_output=False), ["city"])]
    )
    return make_pipeline(prepare, LogisticRegression()).fit(frame, price), frame, price


def odd_columns() -> Built:
    """A data frame with spaces and slashes in its column names, and a column of numbers of dtype object."""
    _, frame, price = data_frame()
    frame = frame.rename(columns={"age": "age (years)", "rooms": "rooms/flat"})
    frame["rooms/flat"] = frame["rooms/flat"].astype(object)
    prepare = ColumnTransformer(
        [("number", StandardScaler(), ["age (years)", "rooms/flat"]), ("word", OneHotEncoder(), ["city"])]
    )
    return make_pipeline(prepare, LogisticRegression()).fit(frame, price), frame, price


def scaler() -> tuple[Any, Any]:
    """A transformer: it decides nothing, and there are no labels."""
    x, _ = load_diabetes(return_X_y=True)
    return StandardScaler().fit(x), x.astype(np.float32)


def margins() -> Built:
    """A classifier without probabilities, to which skl2onnx's option zipmap does not apply."""
    x, y = load_breast_cancer(return_X_y=True)
    return LinearSVC().fit(x[:300], y[:300]), x[300:], y[300:]


def margins_in_a_pipeline() -> Built:
    """The same classifier behind a scaler, on a data frame of integers and floats whose first column is an integer."""
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    x = x.assign(**{"mean area": x["mean area"].astype(int)})[["mean area", "mean symmetry", "mean concavity"]]
    return make_pipeline(StandardScaler(), LinearSVC()).fit(x[:300], y[:300]), x[300:], y[300:]


def clusters() -> tuple[Any, Any]:
    """A clusterer: the export returns distances, `predict` does not."""
    x, _ = load_diabetes(return_X_y=True)
    return KMeans(3, random_state=0).fit(x), x


def two_numbers() -> Built:
    """A regressor with two targets, which skl2onnx returns one after the other."""
    x, y = load_diabetes(return_X_y=True)
    y = np.stack([y, -y], axis=1)
    model = MLPRegressor(hidden_layer_sizes=(16,), max_iter=20, tol=1e9, n_iter_no_change=1, random_state=0)
    return model.fit(x[:300], y[:300]), x[300:], y[300:]


def several_labels() -> Built:
    """A classifier of two labels, whose probabilities are a list of arrays."""
    x, y = load_breast_cancer(return_X_y=True)
    y = np.stack([y, 1 - y], axis=1)
    return MultiOutputClassifier(LogisticRegression(max_iter=5000)).fit(x[:300], y[:300]), x[300:], y[300:]


def texts() -> Built:
    """A text classifier: its samples are a one-dimensional array of texts."""
    x = np.array(["good day", "bad day", "good night", "bad night"] * 10)
    y = np.array([1, 0, 1, 0] * 10)
    return make_pipeline(TfidfVectorizer(lowercase=False), LogisticRegression()).fit(x, y), x, y


def texts_in_a_column() -> Built:
    """The same classifier, with samples in a shape that it does not take."""
    model, x, y = texts()
    return model, x.reshape(-1, 1), y


def ragged() -> tuple[Any, Any]:
    """Samples of unequal lengths."""
    return linear(), {"x": [[1, 2, 3, 4], [1]]}


def without_weights() -> tuple[Any, Any]:
    """A model loaded without its external data."""
    model = linear()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    return model, np.ones((8, 4), np.float32)


def leaves() -> Built:
    """A callable that ends the process."""
    raise SystemExit(3)


def endless() -> Built:
    """A training without end, in an estimator that catches KeyboardInterrupt; it writes a file when it starts."""
    x, y = load_digits(return_X_y=True)

    class Reporting(MLPClassifier):  # type: ignore[misc]
        def _update_no_improvement_count(self, *arguments: Any) -> None:
            Path("training").touch()
            super()._update_no_improvement_count(*arguments)

    model = Reporting((64,), max_iter=10**6, tol=0, n_iter_no_change=10**6, random_state=0)
    return model.fit(x, y), x.astype(np.float32), y


def dice() -> tuple[Any, Any]:
    """A model that adds random noise to its input."""
    shape = ["n", 4]
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "dice", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, np.ones((8, 4), np.float32)


def linear(width: int = 4, rows: int = 3) -> onnx.ModelProto:
    """y = x W + b, with a free batch."""
    weight = np.random.default_rng(0).normal(size=(width, rows)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "W", "b"], ["y"], "dense")],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", rows])],
        [numpy_helper.from_array(weight, "W"), numpy_helper.from_array(np.zeros(rows, np.float32), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def onnx_model() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """An ONNX model with its inputs by name."""
    return linear(), {"x": np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)}


def bare_array() -> tuple[onnx.ModelProto, np.ndarray]:
    """An ONNX model with a bare array for its only input."""
    return linear(), np.ones((8, 4), np.float32)


def nothing() -> None:
    """A callable that returns nothing."""


def needs_a_package() -> Built:
    """A callable that imports what is not installed."""
    importlib.import_module("no_such_package")
    raise AssertionError


def raises() -> Built:
    """A callable that fails."""
    raise RuntimeError("the data base is down")


def other_framework() -> tuple[Callable[[], None], np.ndarray]:
    """A model that no converter knows."""
    return nothing, np.ones((8, 4), np.float32)


def infinite() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model whose answer to sample 5 overflows float32."""
    model, inputs = linear(), np.ones((8, 4), np.float32)
    inputs[5] = 3e38
    return model, {"x": inputs}
