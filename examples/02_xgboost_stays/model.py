"""Tumours, benign or malignant: boosted trees, which have no INT8 form."""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from xgboost import XGBClassifier


def build(seed: int) -> tuple[XGBClassifier, np.ndarray, np.ndarray]:
    """Train on a third of the tumours.

    Returns:
        The fitted estimator, and the other tumours (float32, [380, 30]) with their labels.
    """
    x, y = load_breast_cancer(return_X_y=True)
    train, test, train_y, test_y = train_test_split(x.astype(np.float32), y, train_size=189, random_state=seed)
    return XGBClassifier(n_estimators=100, random_state=seed, n_jobs=1).fit(train, train_y), test, test_y
