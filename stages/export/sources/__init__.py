"""The frameworks that export converts to ONNX, each a `stages.export.framework.Framework`.

A module imports its framework only in the functions that use it: a model of one framework needs no other framework.
"""

from pathlib import Path
from typing import Any

from stages.common.base.errors import StageError
from stages.export.framework import Framework, read_by, required
from stages.export.sources import boosted, onnx, sklearn, torch

# Estimators of XGBoost and LightGBM are also scikit-learn's, so their own converters come first.
FRAMEWORKS = (onnx.FRAMEWORK, boosted.XGBOOST, boosted.LIGHTGBM, torch.FRAMEWORK, sklearn.FRAMEWORK)

KNOWN = "scikit-learn, XGBoost, LightGBM or PyTorch"

PICKLES = (".joblib", ".pkl", ".pickle")


def framework_of(model: Any) -> Framework | None:
    """The framework that `model` belongs to; None if no framework here knows it."""
    return next((framework for framework in FRAMEWORKS if framework.knows(model)), None)


def load(path: Path, *, allow_pickle: bool) -> Any:
    """Read a model file, by its suffix; without a known suffix it must be ONNX.

    Raises:
        StageError: the file is damaged or not a model, or it is a pickle and `allow_pickle` is false.
    """
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        if not allow_pickle:
            raise StageError(
                f"{path.as_posix()} is a pickle, and loading a pickle runs the code in it. If you trust it, set "
                "export.allow_pickle to true; otherwise save the model with skops.io.dump as a .skops file."
            )
        joblib = required("joblib", f"Loading {path.as_posix()}", "joblib")
        return read_by(lambda: joblib.load(path), path, "joblib")
    if suffix in sklearn.FRAMEWORK.suffixes:
        return sklearn.load(path, allow_pickle=allow_pickle)
    framework = next((framework for framework in FRAMEWORKS if suffix in framework.suffixes), onnx.FRAMEWORK)
    return framework.load(path)
