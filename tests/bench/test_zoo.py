from pathlib import Path

import numpy as np
import pytest

from stages.bench.inputs import write_identity
from stages.common.timing import process
from stages.common.timing.feed import store
from tests.zoo import ZOO, needs_zoo


@needs_zoo
@pytest.mark.parametrize(
    "name",
    [
        "skl_rf_bc_zipmap",  # a sequence of maps comes out
        "silero_vad_op15",  # running state, a scalar, weights in an If
        "tiny_gpt2_beamsearch",  # whole numbers, a decoder within an operator
        "go_zero_dim_output",  # an empty output
        "ort_logreg_iris",  # a fixed batch, no default domain
    ],
)
def test_real_models_are_timed_and_profiled(name: str, tmp_path: Path) -> None:
    assert ZOO is not None
    model = str(ZOO / name / "model.onnx")
    with np.load(ZOO / name / "inputs.npz") as inputs:
        feed = store(tmp_path / "feed.npz", dict(inputs), samples=1)
    shared = {"models": [model, model], "threads": 1}
    (timed,) = process.ask("stages.common.timing.launch", {**shared, "feeds": [feed], "seconds": 0.05, "turn": 1})
    assert len(timed["rounds"]) >= 2
    job = {**shared, "feed": feed, "identity": write_identity(tmp_path), "folder": str(tmp_path)}
    profile = process.ask("stages.bench.workers.profiler", job)
    assert sum(profile["fp32"].values()) > 0
    assert set(profile["fp32"]) == set(profile["int8"])
