"""Stages that are stopped half-way: nothing partial at a final name, nothing left behind, and the next run heals."""

import json
import signal
import subprocess
import time

import numpy as np
import onnx
import pytest

from stages.common.base import paths
from tests.pipeline.conftest import Project

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
@pytest.mark.parametrize("stage", ["host", "export", "quantize", "parity", "bench"])
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


@pytest.mark.slow
def test_the_next_run_heals_what_a_killed_one_left(project: Project) -> None:
    """SIGKILL lets nobody clean up: the next run sweeps the temporary names away."""
    process = project.start("python", "-m", "stages.export")
    seen = False
    while process.poll() is None and not seen:
        seen = any(each.name.endswith(".tmp") for each in (project.root / "artifacts").iterdir())
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=60)
    assert seen
    project.run("dvc", "repro", "quantize")
    assert_whole(project)
