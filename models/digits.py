"""The model that comes with the pipeline: an MLP with 1.1 million weights that reads handwritten digits."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits


def build(seed: int) -> tuple[Pipeline, np.ndarray, np.ndarray]:
    """Train the classifier.

    Args:
        seed: of the split into training and test data, and of the training.

    Returns:
        The fitted pipeline, the test images (float32, [719, 64], values 0 to 16) and their labels (int64, [719]).
    """
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images.astype(np.float32), labels, test_size=0.4, random_state=seed, stratify=labels
    )
    model = make_pipeline(
        StandardScaler(), MLPClassifier((1024, 1024), tol=1e-3, n_iter_no_change=5, random_state=seed)
    )
    # Sums in BLAS depend on the number of threads: with one thread, the weights are the same on any number of cores.
    with threadpool_limits(1):
        model.fit(train, train_labels)
    return model, test, test_labels
