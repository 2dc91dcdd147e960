"""A folder of models for benchmarks: `NAME/model.onnx`, and `NAME/samples.npz` or `NAME/inputs.npz` beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.common.base.errors import StageError


def names(folder: Path) -> list[str]:
    """The models in a folder.

    Raises:
        StageError: there are none.
    """
    found = sorted(path.parent.name for path in folder.glob("*/model.onnx"))
    if not found:
        raise StageError(f"{folder} has no models: give a folder of folders, each with a model.onnx and its inputs.")
    return found


def feeds(folder: Path) -> dict[str, Any]:
    """The inputs of a model by name, with whole feeds along axis 0: all of samples.npz, or the one of inputs.npz."""
    whole = (folder / "samples.npz").exists()
    with np.load(folder / ("samples.npz" if whole else "inputs.npz"), allow_pickle=True) as given:
        return {name: given[name] if whole else np.asarray(given[name])[None] for name in given.files}
