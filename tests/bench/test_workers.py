import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnx
import psutil
import pytest

from stages.bench.inputs import write_identity
from stages.bench.workers import profiler
from stages.common.base.errors import StageError
from stages.common.timing import process as worker
from stages.common.timing.feed import store
from stages.common.timing.launch import MIN_ROUNDS
from tests import sources

ROOT = Path(__file__).resolve().parents[2]


def launch_job(folder: Path, **changes: object) -> dict[str, object]:
    model = folder / "model.onnx"
    onnx.save(sources.linear(), model)
    feed = store(folder / "feed.npz", {"x": np.ones((2, 4), np.float32)}, samples=2)
    job = {"models": [str(model), str(model)], "threads": 1, "feeds": [feed], "seconds": 0.05, "turn": 0}
    return job | changes


@pytest.mark.parametrize(
    "name", ["stages.common.timing.launch", "stages.bench.workers.probe", "stages.bench.workers.profiler"]
)
def test_a_worker_imports_little_that_could_weigh_on_what_it_measures(name: str) -> None:
    loaded = "{name.split('.')[0] for name, module in sys.modules.items() if getattr(module, '__spec__', None)}"
    code = f"import sys, {name}; print(*sorted({loaded}))"
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"onnxruntime", "numpy"} <= set(imported.split())
    assert not {"onnx", "onnx_ir", "pydantic", "sympy", "yaml"} & set(imported.split())


def test_a_launch_times_both_models_in_rounds(tmp_path: Path) -> None:
    (answer,) = worker.ask("stages.common.timing.launch", launch_job(tmp_path))
    assert len(answer["rounds"]) >= MIN_ROUNDS
    for fp32, int8 in answer["rounds"]:
        assert len(fp32) >= 4
        assert len(int8) >= 4
        assert min(fp32 + int8) > 0
    assert 0 < answer["cpu_share"] <= 1.01


def test_a_launch_measures_each_feed(tmp_path: Path) -> None:
    feeds = [store(tmp_path / f"{size}.npz", {"x": np.ones((size, 4), np.float32)}, samples=size) for size in (1, 16)]
    assert len(worker.ask("stages.common.timing.launch", launch_job(tmp_path, feeds=feeds))) == 2


def test_two_threads_are_measured_as_well(tmp_path: Path) -> None:
    assert worker.ask("stages.common.timing.launch", launch_job(tmp_path, threads=2))


def test_a_probe_finds_the_memory_of_a_model(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(sources.linear(1024, 4096), model)  # 16.8 MB of weights
    feed = store(tmp_path / "feed.npz", {"x": np.ones((1, 1024), np.float32)}, samples=1)
    job = {
        "model": str(model),
        "threads": 1,
        "feed": feed,
        "identity": write_identity(tmp_path),
    }
    answer = worker.ask("stages.bench.workers.probe", job)
    assert 15 < answer["resident_mb"] < 40
    if sys.platform == "linux":
        assert answer["peak_load_mb"] > 15
        assert answer["peak_run_mb"] >= 0
    assert answer["load_ms"] > 0
    assert answer["first_ms"] > 0


def test_the_profile_names_the_operators_of_both_models(tmp_path: Path) -> None:
    onnx.save(sources.linear(), tmp_path / "model.onnx")
    feed = store(tmp_path / "feed.npz", {"x": np.ones((1, 4), np.float32)}, samples=1)
    job = {
        "models": [str(tmp_path / "model.onnx")] * 2,
        "threads": 1,
        "feed": feed,
        "identity": write_identity(tmp_path),
        "folder": str(tmp_path),
    }
    answer = worker.ask("stages.bench.workers.profiler", job)
    assert set(answer) == {"fp32", "int8"}
    assert set(answer["fp32"]) == {"Gemm"}
    assert len(list(tmp_path.glob("profile*.json"))) == 3  # begun in one millisecond, two would share a name


@pytest.mark.parametrize("profile", ["", '[{"name": "model_r'])
def test_a_profile_that_was_cut_short_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    onnx.save(sources.linear(), tmp_path / "model.onnx")
    (tmp_path / "profile.json").write_text(profile)
    feed = {"x": np.ones((1, 4), np.float32)}
    session = profiler._ProfiledSession(str(tmp_path / "model.onnx"), feed, 1, str(tmp_path / "profile"))
    monkeypatch.setattr(session, "_session", Mock(end_profiling=lambda: str(tmp_path / "profile.json")))
    with pytest.raises(StageError, match="was cut short"):
        session.end()


def test_a_model_that_does_not_load_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    broken = str(tmp_path / "broken.onnx")
    with pytest.raises(StageError, match=r"cannot load .*broken\.onnx"):
        worker.ask("stages.common.timing.launch", launch_job(tmp_path, models=[broken, broken]))


def test_a_feed_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    feed = store(tmp_path / "wrong.npz", {"x": np.ones((2, 5), np.float32)}, samples=2)
    with pytest.raises(StageError, match="does not run on the evaluation data"):
        worker.ask("stages.common.timing.launch", launch_job(tmp_path, feeds=[feed]))


def test_a_killed_process_is_reported(tmp_path: Path) -> None:
    asking = subprocess.Popen(
        [sys.executable, "-c", asking_code(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    os.kill(measuring_process(asking.pid), signal.SIGKILL)
    _, stderr = asking.communicate(timeout=60)
    assert "was killed (SIGKILL), as Linux does when memory runs out" in stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux informs a child that its parent died")
def test_a_measuring_process_dies_with_the_stage(tmp_path: Path) -> None:
    asking = subprocess.Popen([sys.executable, "-c", asking_code(tmp_path)], cwd=ROOT)
    measuring = measuring_process(asking.pid)
    asking.kill()
    asking.wait()
    wait_until(lambda: not psutil.pid_exists(measuring) or psutil.Process(measuring).status() == "zombie")


def asking_code(folder: Path) -> str:
    return textwrap.dedent(f"""
        from stages.common.timing import process
        process.ask("stages.common.timing.launch", {json.loads(json.dumps(launch_job(folder, seconds=600)))!r})
    """)


def measuring_process(asking: int) -> int:
    """The id of the measuring process, once it runs."""
    children: list[psutil.Process] = []

    def started() -> bool:
        children[:] = psutil.Process(asking).children()
        return bool(children) and "onnxruntime" in str(children[0].memory_maps())

    wait_until(started)
    return int(children[0].pid)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
