"""Stages that are stopped half-way leave no partial file at a final name, and the next run cleans up after them."""

import itertools
import json
import signal
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from stages.common.base import paths
from tests.pipeline.conftest import Project

DRIVER = """
import os, runpy, signal, sys, threading

stage, moment, name = sys.argv[1:]
sys.argv[1:] = []

def stop():
    os.kill(os.getpid(), signal.Signals[name])

def hook(event, arguments):
    if event == "subprocess.Popen" and moment == "launch":
        threading.Timer(0.3, stop).start()
    begins = event == "open" and moment == "write" and isinstance(arguments[1], str) and "w" in arguments[1]
    if (begins or event == "os.rename" and moment == "rename") and ".tmp" in str(arguments[0]):
        stop()

sys.addaudithook(hook)
runpy.run_module(f"stages.{stage}", run_name="__main__")
"""
"""Run a stage that gets a signal as it opens its first temporary file, puts one in place, or has started a process."""


def assert_whole(project: Project) -> None:
    """Every file of artifacts/ and metrics/ can be read to its end, and no temporary file is left."""
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


def contents(project: Project) -> dict[Path, bytes]:
    folders = (project.root / folder for folder in (paths.ARTIFACTS, paths.METRICS))
    return {file: file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "moment"),
    [
        *itertools.product(("host", "export", "quantize", "parity", "gate"), ("write", "rename")),
        *itertools.product(("bench",), ("launch", "rename")),
    ],
)
def test_a_stage_that_is_terminated_leaves_whole_files_or_none(ran: Project, stage: str, moment: str) -> None:
    before = contents(ran)
    done = ran.run("python", "-c", DRIVER, stage, moment, "SIGTERM", check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (143, "Terminated: nothing half-written is left behind.")
    assert_whole(ran)
    if moment != "rename":
        assert contents(ran) == before
    left = [process.info for process in psutil.process_iter(["cwd", "cmdline"]) if process.info["cwd"] == str(ran.root)]
    assert left == []
    ran.restore()


@pytest.mark.slow
def test_the_next_run_cleans_up_after_a_killed_one(project: Project) -> None:
    """A process cannot clean up on SIGKILL, so the next run removes its temporary files."""
    done = project.run("python", "-c", DRIVER, "export", "rename", "SIGKILL", check=False)
    assert done.returncode == -signal.SIGKILL
    assert any(file.name.endswith(".tmp") for file in (project.root / "artifacts").iterdir())
    project.run("python", "-m", "stages.export")
    assert_whole(project)
