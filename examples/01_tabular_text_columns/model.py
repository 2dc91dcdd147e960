"""Wines by cultivar: a data frame with numbers, an integer and text, into an MLP."""

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def build(seed: int) -> tuple[Pipeline, pd.DataFrame, pd.Series]:
    """Train on half of the wines.

    Returns:
        The fitted pipeline, and all wines with their cultivars.
    """
    frame, cultivar = load_wine(return_X_y=True, as_frame=True)
    frame["strength"] = pd.cut(frame.pop("alcohol"), 3, labels=["light", "medium", "strong"]).astype(str)
    frame["proline"] = frame["proline"].astype(int)
    numbers = [name for name in frame.columns if name != "strength"]
    prepare = make_column_transformer(
        (StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), ["strength"])
    )
    model = make_pipeline(prepare, MLPClassifier((256, 256), random_state=seed))
    train, _, train_cultivar, _ = train_test_split(frame, cultivar, test_size=0.5, random_state=seed)
    return model.fit(train, train_cultivar), frame, cultivar
