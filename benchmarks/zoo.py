"""A folder of models for benchmarks: `NAME/model.onnx`, and `NAME/samples.npz` or `NAME/inputs.npz` beside it."""

from pathlib import Path
from typing import Any

import numpy as np


def names(folder: Path) -> list[str]:
    """The models in a folder."""
    return sorted(path.parent.name for path in folder.glob("*/model.onnx"))


def feeds(folder: Path) -> dict[str, Any]:
    """The inputs of a model by name, with whole feeds along axis 0: all of samples.npz, or the one of inputs.npz."""
    whole = (folder / "samples.npz").exists()
    with np.load(folder / ("samples.npz" if whole else "inputs.npz"), allow_pickle=True) as given:
        return {name: given[name] if whole else np.asarray(given[name])[None] for name in given.files}
