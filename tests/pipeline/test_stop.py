"""Stages that are stopped half-way: nothing partial at a final name, nothing left behind, and the next run heals."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from stages.common.base import paths
from tests.pipeline.conftest import ROOT, Project

STOPPED = {0, 143, -signal.SIGTERM}
"""It had ended already; it cleaned up; it had not begun (Python was still starting)."""


def assert_whole(project: Project) -> None:
    """Every file that stands at its final name can be read to its end, and nothing else stands there."""
    for folder in (paths.ARTIFACTS, paths.METRICS):
        for file in (project.root / folder).rglob("*"):
            assert not file.name.endswith(".tmp"), file
            match file.suffix:
                case ".json":
                    json.loads(file.read_text())
                case ".npy":
                    np.load(file)
                case ".onnx":
                    onnx.checker.check_model(onnx.load(file))
                case ".csv":
                    assert file.read_text().endswith("\n")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["host", "export", "quantize", "parity", "bench", "gate"])
def test_a_stage_that_is_terminated_leaves_whole_files_or_none(ran: Project, stage: str) -> None:
    started = time.monotonic()
    ran.run("python", "-m", f"stages.{stage}")
    duration = time.monotonic() - started
    for part in (0.3, 0.9) if stage == "bench" else (0.3, 0.5, 0.7, 0.8, 0.9, 0.97):
        process = ran.start("python", "-m", f"stages.{stage}")
        time.sleep(duration * part)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode in STOPPED
        assert_whole(ran)
    children = subprocess.run(["pgrep", "-f", f"stages.{stage}"], capture_output=True, text=True, check=False).stdout
    own = [pid for pid in children.split() if ran.root.samefile(f"/proc/{pid}/cwd")]
    assert own == []
    ran.restore()


TRAINING = """
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier


def build():
    data, labels = load_digits(return_X_y=True)
    model = MLPClassifier((64,), max_iter=1_000_000, tol=0.0, n_iter_no_change=1_000_000, verbose=True)
    return model.fit(data, labels), data.astype("float32"), labels
"""


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_swallows_the_signal_publishes_nothing(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """scikit-learn catches KeyboardInterrupt, warns, and returns the half-trained model."""
    (tmp_path / "training.py").write_text(TRAINING)
    (tmp_path / "params.yaml").write_text("export: {source: 'training:build'}")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "stages.export"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("Iteration 2"):
        assert process.poll() is None
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "nothing half-written" in stderr.splitlines()[-1]
    assert not (tmp_path / "artifacts").exists() or list((tmp_path / "artifacts").iterdir()) == []
    assert not (tmp_path / "metrics").exists()


@pytest.mark.slow
def test_the_next_run_heals_what_a_killed_one_left(project: Project) -> None:
    """SIGKILL lets nobody clean up: the next run sweeps the temporary names away."""
    process = project.start("python", "-m", "stages.export")
    seen = False
    while process.poll() is None and not seen:
        seen = any(file.name.endswith(".tmp") for file in (project.root / "artifacts").iterdir())
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=60)
    assert seen
    project.run("dvc", "repro", "quantize")
    assert_whole(project)
