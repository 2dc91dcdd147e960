"""Trained models of every framework, as `export.source` names them: tests.export.models:xgboost_classifier."""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests import sources

Built = tuple[Any, Any, Any]


def tabular(rows: int = 300, *, missing: bool = False) -> tuple[Any, np.ndarray]:
    """A data frame with columns of every kind, and a label that depends on them."""
    import pandas as pd

    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": random.normal(40, 9, rows),
            "rooms": random.integers(1, 6, rows),
            "owner": random.integers(0, 2, rows).astype(bool),
            "floor": random.integers(0, 9, rows).astype(np.int32),
            "score": random.normal(size=rows).astype(np.float32),
            "city": random.choice(["Bern", "Ulm"], rows),
        }
    )
    label = (frame["age"] + 9 * (frame["city"] == "Ulm") + frame["rooms"] > 45).to_numpy().astype(int)
    if missing:
        frame.loc[[3, 70], "city"] = None
        frame.loc[5, "age"] = np.nan
    return frame, label


NUMBERS = ["age", "rooms", "owner", "floor", "score"]


def mixed_columns() -> Built:
    """Numbers of five types and text, through scaling and one-hot encoding."""
    frame, label = tabular()
    prepare = ColumnTransformer(
        [("numbers", StandardScaler(), NUMBERS), ("text", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    )
    return make_pipeline(prepare, LogisticRegression()).fit(frame, label), frame, label


def missing_text() -> Built:
    """The same with missing numbers and missing text, which are imputed."""
    frame, label = tabular(missing=True)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    prepare = ColumnTransformer([("numbers", numbers, NUMBERS), ("text", text, ["city"])])
    return make_pipeline(prepare, LogisticRegression()).fit(frame, label), frame, label


def flags_beside_text() -> Built:
    """Booleans behind an imputer of text, where ONNX makes them text."""
    frame, label = tabular()
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    model = make_pipeline(ColumnTransformer([("text", text, ["city", "owner"])]), LogisticRegression())
    return model.fit(frame, label), frame, label


def no_rows() -> Built:
    model, frame, label = mixed_columns()
    return model, frame[:0], label[:0]


def unfitted() -> Built:
    frame, label = tabular()
    return make_pipeline(StandardScaler(), LogisticRegression()), frame[["age"]], label


def calibrated() -> Built:
    x, y = load_breast_cancer(return_X_y=True)
    return CalibratedClassifierCV(LogisticRegression(max_iter=5000)).fit(x[:300], y[:300]), x[300:], y[300:]


def imputed() -> Built:
    """Missing numbers imputed from neighbours, for which the converter needs opset 18."""
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    return KNNImputer().fit(x), x, None


def isotonic() -> Built:
    """Isotonic calibration, whose steps shift when values are rounded to float32."""
    x, y = load_breast_cancer(return_X_y=True)
    model = CalibratedClassifierCV(LogisticRegression(max_iter=5000), method="isotonic")
    return model.fit(x[:300], y[:300]), x[300:], y[300:]


def forest_behind_a_scaler() -> Built:
    """Scaled digits, small integers, often lie on a threshold: the rounding to float32 decides on which side."""
    x, y = load_digits(return_X_y=True)
    model = make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0))
    return model.fit(x[:1000], y[:1000]), x[1000:], y[1000:]


def search() -> Built:
    x, y = load_breast_cancer(return_X_y=True)
    network = make_pipeline(StandardScaler(), MLPClassifier((16,), random_state=0, max_iter=50, tol=1e-2))
    model = RandomizedSearchCV(network, {"mlpclassifier__alpha": [1e-4, 1e-2]}, n_iter=2, cv=2, random_state=0)
    return model.fit(x[:300], y[:300]), x[300:], y[300:]


def vote() -> Built:
    x, y = load_breast_cancer(return_X_y=True)
    members = [("line", LogisticRegression(max_iter=5000)), ("trees", RandomForestClassifier(5, random_state=0))]
    return VotingClassifier(members, voting="soft").fit(x[:300], y[:300]), x[300:], y[300:]


def histogram_classifier() -> Built:
    x, y = load_breast_cancer(return_X_y=True)
    return HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(x[:300], y[:300]), x[300:], y[300:]


def histogram_regressor() -> Built:
    x, y = load_diabetes(return_X_y=True)
    return HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(x[:300], y[:300]), x[300:], y[300:]


def prices() -> Built:
    """A target near 250 000."""
    x, y = load_diabetes(return_X_y=True)
    y = 250_000 + 1000 * (y - y.mean())
    return Ridge(alpha=0.01).fit(x[:300], y[:300]), x[300:], y[300:]


def transformed_target() -> Built:
    """A logarithm of the target, at the end of a pipeline."""
    x, y = load_diabetes(return_X_y=True)
    model = make_pipeline(StandardScaler(), TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1))
    return model.fit(x[:300], y[:300]), x[300:], y[300:]


def scaled_target() -> Built:
    """A target near 250 000, scaled around a pipeline."""
    _, x, y = prices()
    regressor = make_pipeline(StandardScaler(), Ridge(alpha=0.01))
    return TransformedTargetRegressor(regressor, transformer=StandardScaler()).fit(x, y), x, y


def odd_target() -> Built:
    """A target whose inverse transform is the user's own code."""
    x, y = load_diabetes(return_X_y=True)

    def back(values: np.ndarray) -> np.ndarray:
        return values + 1

    model = TransformedTargetRegressor(Ridge(), func=lambda values: values - 1, inverse_func=back)
    return model.fit(x[:300], y[:300]), x[300:], y[300:]


def missing_numbers() -> Built:
    """A missing value where the training data had none."""
    model, x, y = calibrated()
    x = x.copy()
    x[7, 2] = np.nan
    return model, x, y


def three_dimensional() -> Built:
    model, x, y = calibrated()
    return model, x[:, :, np.newaxis], y


def too_few_labels() -> Built:
    model, x, y = calibrated()
    return model, x, y[:-1]


def sequences() -> Built:
    """Three-dimensional inputs, and two outputs, one of them per sample."""
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["steps"]), helper.make_node("ReduceMean", ["steps"], ["y"], axes=[1])],
        "sequences",
        [helper.make_tensor_value_info("x", kind, ["n", 5, 4])],
        [helper.make_tensor_value_info(name, kind, ["n", size, 3]) for name, size in (("steps", 5), ("y", 1))],
        [onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return model, np.random.default_rng(0).normal(size=(40, 5, 4)).astype(np.float32), None


def integer_first() -> Built:
    """A forest on a data frame of an integer and a float, without a step that picks its columns."""
    frame, label = tabular()
    columns = frame[["rooms", "score"]]
    return RandomForestClassifier(5, random_state=0).fit(columns, label), columns, label


def integer_first_scaled() -> Built:
    frame, label = tabular()
    columns = frame[["rooms", "score"]]
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(columns, label), columns, label


def xgboost_classifier() -> Built:
    from xgboost import XGBClassifier

    x, y = load_breast_cancer(return_X_y=True)
    return XGBClassifier(n_estimators=20, random_state=0, n_jobs=1).fit(x[:300], y[:300]), x[300:], y[300:]


def xgboost_frame() -> Built:
    """Trained on a data frame with missing values, which XGBoost takes."""
    from xgboost import XGBClassifier

    frame, label = tabular(missing=True)
    frame = frame[NUMBERS]
    return XGBClassifier(n_estimators=10, random_state=0, n_jobs=1).fit(frame, label), frame, label


def xgboost_regressor() -> Built:
    from xgboost import XGBRegressor

    x, y = load_diabetes(return_X_y=True)
    return XGBRegressor(n_estimators=20, random_state=0, n_jobs=1).fit(x[:300], y[:300]), x[300:], y[300:]


def xgboost_booster() -> Built:
    import xgboost

    x, y = load_digits(return_X_y=True)
    settings = {"objective": "multi:softprob", "num_class": 10, "seed": 0, "nthread": 1, "max_depth": 3}
    return xgboost.train(settings, xgboost.DMatrix(x[:1000], y[:1000]), 10), x[1000:], y[1000:]


def xgboost_in_a_pipeline() -> Built:
    from xgboost import XGBClassifier

    frame, label = tabular()
    prepare = ColumnTransformer(
        [("numbers", StandardScaler(), NUMBERS), ("text", OneHotEncoder(sparse_output=False), ["city"])]
    )
    model = make_pipeline(prepare, XGBClassifier(n_estimators=10, random_state=0, n_jobs=1))
    return model.fit(frame[:200], label[:200]), frame[200:], label[200:]


def lightgbm_classifier() -> Built:
    from lightgbm import LGBMClassifier

    x, y = load_breast_cancer(return_X_y=True)
    model = LGBMClassifier(n_estimators=20, random_state=0, verbose=-1, n_jobs=1)
    return model.fit(x[:300], y[:300]), x[300:], y[300:]


def lightgbm_unfitted() -> Built:
    model, x, y = lightgbm_classifier()
    return type(model)(), x, y


def xgboost_unfitted() -> Built:
    from xgboost import XGBRegressor

    _, x, y = lightgbm_classifier()
    return XGBRegressor(), x, y


def lightgbm_flags() -> Built:
    """Labels that are booleans."""
    model, x, y = lightgbm_classifier()
    return model.fit(x, y == 1), x, y == 1


def lightgbm_frame() -> Built:
    """LightGBM calls the column `age in years` age_in_years."""
    import pandas as pd
    from lightgbm import LGBMClassifier

    x, y = load_breast_cancer(return_X_y=True)
    frame = pd.DataFrame(x[:, :3], columns=["age in years", "size", "b"])
    model = LGBMClassifier(n_estimators=20, random_state=0, verbose=-1, n_jobs=1)
    return model.fit(frame[:300], y[:300]), frame[300:], y[300:]


def numbered_columns() -> Built:
    """Boosted trees call the columns of `pd.DataFrame(array)` "0", "1", "2"."""
    import pandas as pd
    from xgboost import XGBClassifier

    x, y = load_breast_cancer(return_X_y=True)
    frame = pd.DataFrame(x[:, :3])
    return XGBClassifier(n_estimators=10, random_state=0, n_jobs=1).fit(frame[:300], y[:300]), frame[300:], y[300:]


def neighbours() -> tuple[np.ndarray, np.ndarray]:
    """Rows that are neighbours in float32: a threshold that separates two of them is not float32, or is one of them."""
    number = np.arange(1280) % 64
    x = 1 + number.astype(np.float32)[:, None] * np.finfo(np.float32).eps
    return x, np.random.default_rng(0).normal(size=64)[number]


def lightgbm_neighbours() -> Built:
    from lightgbm import LGBMRegressor

    x, y = neighbours()
    return LGBMRegressor(n_estimators=20, random_state=0, verbose=-1, n_jobs=1).fit(x, y), x, y


def lightgbm_booster_of_neighbours() -> Built:
    model, x, y = lightgbm_neighbours()
    return model.booster_, x, y


def xgboost_neighbours() -> Built:
    from xgboost import XGBRegressor

    x, y = neighbours()
    return XGBRegressor(n_estimators=20, random_state=0, n_jobs=1).fit(x, y), x, y


def lightgbm_linear_leaves() -> Built:
    from lightgbm import LGBMRegressor

    x, y = load_diabetes(return_X_y=True)
    model = LGBMRegressor(n_estimators=20, linear_tree=True, random_state=0, verbose=-1, n_jobs=1)
    return model.fit(x[:300], y[:300]), x[300:], y[300:]


def lightgbm_booster() -> Built:
    import lightgbm

    x, y = load_breast_cancer(return_X_y=True)
    settings = {"objective": "binary", "verbose": -1, "seed": 0, "num_threads": 1}
    return lightgbm.train(settings, lightgbm.Dataset(x[:300], y[:300]), 20), x[300:], y[300:]


def lightgbm_in_a_pipeline() -> Built:
    from lightgbm import LGBMRegressor

    x, y = load_diabetes(return_X_y=True)
    model = make_pipeline(StandardScaler(), LGBMRegressor(n_estimators=10, random_state=0, verbose=-1, n_jobs=1))
    return model.fit(x[:300], y[:300]), x[300:], y[300:]


def path_of_a_model() -> Built:
    """A path in place of a model."""
    import onnx

    onnx.save(sources.linear(), "made.onnx")
    return Path("made.onnx"), np.ones((8, 4), np.float32), None
