import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from skl2onnx import to_onnx

from stages.bench import figures, screen, stage
from stages.bench.control import CHECKS
from stages.bench.inputs import HostSummary
from stages.bench.stage import BenchResult
from stages.common.base import command, paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params, load
from stages.common.data import evaldata
from stages.common.timing import lock
from stages.common.timing.summary import FEWEST_LAUNCHES, speedup
from tests import sources
from tests.bench.conftest import write_project

ROOT = Path(__file__).resolve().parents[2]

HEADLINES = {
    "speedup": ("ratio", "low95", "high95", "verdict"),
    "latency": ("fp32_p50_ms", "int8_p50_ms"),
    "memory": ("fp32_mb", "int8_mb"),
    "load": ("fp32_ms", "int8_ms"),
}


def bench(project: Path, text: str) -> tuple[Any, Any]:
    """Run the stage; its headlines and its details."""
    (project / "params.yaml").write_text(text, encoding="utf-8")
    result = stage.run(load(project / "params.yaml"))
    figures.write(result)
    command.show(screen.render(result))
    headlines, details = (read(project / path) for path in (paths.BENCH, paths.BENCH_DETAILS))
    assert {group: tuple(keys) for group, keys in headlines.items()} == HEADLINES
    reasons = details.pop("null_reasons")
    assert {*figures._nulls(headlines), *figures._nulls(details)} == set(reasons)
    details["null_reasons"] = reasons
    return headlines, details


def read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"JSON has no {word}"))


def rows(project: Path, path: Path) -> list[dict[str, str]]:
    with (project / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# The command, with the lock of these tests.
BENCH = """
import runpy, sys
from pathlib import Path
from stages.common.timing import lock
path = Path(sys.argv.pop(1))
lock.lock_file = lambda: path
runpy.run_module("stages.bench", run_name="__main__", alter_sys=True)
"""


@pytest.mark.usefixtures("short")
def test_a_quantized_model_is_measured_from_end_to_end_and_another_bench_waits(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(project, project / "other")
    (project / "other/params.yaml").write_text("bench: {max_seconds: 0.1, batch_sizes: [], memory: false}\n")
    with subprocess.Popen(
        [sys.executable, "-c", BENCH, str(lock.lock_file())],
        cwd=project / "other",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        headlines, details = bench(project, "bench: {max_seconds: 60, target_halfwidth: 0.99, batch_sizes: [1, 4]}")
        _, errors = other.communicate()
    assert other.returncode == 0, errors
    ours, theirs = (spans(folder) for folder in (project, project / "other"))
    assert min(map(len, (ours, theirs))) >= FEWEST_LAUNCHES
    for (_, end), (start, _) in pairwise(sorted([*ours, *theirs])):
        assert end <= start
    assert headlines["speedup"]["low95"] <= headlines["speedup"]["ratio"] <= headlines["speedup"]["high95"]
    assert details["measured"]["launches"] >= FEWEST_LAUNCHES
    for group, figures_of in details["spread"].items():
        for key, (low, high) in figures_of.items():
            assert low <= headlines[group][key] <= high, key
    assert details["measured"]["machine_id"] == "test"
    assert details["measured"]["machine"] == "Model T, avx2"
    assert [batch["batch"] for batch in details["batches"]] == [1, 4]
    assert details["batches"][0]["speedup"] == headlines["speedup"]["ratio"]
    assert [row["batch"] for row in rows(project, paths.BENCH_SPEEDUP)] == ["1", "4"]
    assert {row["operator"] for row in rows(project, paths.OPERATORS)} >= {"Gemm"}
    curve = [float(row["fp32_ms"]) for row in rows(project, paths.BENCH_LATENCY)]
    assert curve == sorted(curve)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 160
    assert " ".join(text.split()).count("Model T, avx2") == 1
    check_launches(project, details)


def spans(project: Path) -> set[tuple[float, float]]:
    """When the timed sections of a bench began and ended, from its evidence."""
    return {(float(row["start"]), float(row["end"])) for row in rows(project, paths.BENCH_LAUNCHES)}


def check_launches(project: Path, details: Any) -> None:
    """Compute each interval again from the CSV file alone."""
    launches = rows(project, paths.BENCH_LAUNCHES)
    for batch in details["batches"]:
        of_batch = [row for row in launches if row["batch"] == str(batch["batch"])]
        medians, counted = [], []
        for _, of_launch in groupby(of_batch, key=lambda row: row["launch"]):
            of_rounds = list(of_launch)
            medians.append(np.array([[float(row["fp32_p50_ms"]), float(row["int8_p50_ms"])] for row in of_rounds]))
            counted.append(np.array([row["counted"] == "1" for row in of_rounds]))
        interval = speedup(medians, counted)
        assert interval.ratio == pytest.approx(batch["speedup"], rel=5e-4)
        assert interval.low == pytest.approx(batch["low95"], rel=5e-4)
        assert interval.high == pytest.approx(batch["high95"], rel=5e-4)


def test_two_equal_files_are_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, x, _ = sources.forest(0)
    write_project(tmp_path, to_onnx(model, x[:1], options={"zipmap": False}), None, {"X": x})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "time_pair", None)
    headlines, details = bench(tmp_path, "{}")
    assert headlines["speedup"] == {"ratio": 1, "low95": 1, "high95": 1, "verdict": "equivalent"}
    assert headlines["latency"] == {"fp32_p50_ms": None, "int8_p50_ms": None}
    assert "both files are identical" in details["null_reasons"]["memory.fp32_mb"]
    assert details["without_int8"] == ["TreeEnsembleClassifier"]
    assert details["measured"]["sha256"]["fp32"] == details["measured"]["sha256"]["int8"]
    assert rows(tmp_path, paths.BENCH_LAUNCHES) == []
    assert "Both files are identical" in capsys.readouterr().out


@pytest.mark.usefixtures("short")
def test_a_model_with_a_fixed_batch_is_measured_there_alone(project: Path) -> None:
    for path in (paths.FP32_MODEL, paths.INT8_MODEL):
        model = onnx.load(path)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 3
        onnx.save(model, path)
    _, details = bench(
        project, "{serving: {batch_size: 2}, bench: {max_seconds: 0.1, batch_sizes: [8], memory: false}}"
    )
    assert details["measured"]["batch"] == 3
    assert details["batches"][0]["fp32_p50_ms"] > 0
    assert details["batches"][1] == {"batch": 8, "not_measured": "the model's inputs fix the batch at 3"}
    assert details["null_reasons"]["memory.fp32_mb"] == "bench.memory is false"


@pytest.mark.usefixtures("short")
def test_whole_feeds_are_given_as_they_are(project: Path) -> None:
    folder = project / "feeds"
    evaldata.write(folder, {"x": np.ones((6, 5, 256), np.float32)}, None, "feeds", seed=0)
    (project / paths.EVAL).rename(project / "away")
    folder.rename(project / paths.EVAL)
    headlines, details = bench(project, "bench: {max_seconds: 0.1, batch_sizes: [8], memory: false}")
    assert headlines["latency"]["fp32_p50_ms"] > 0
    assert "whole feeds" in details["batches"][1]["not_measured"]


@pytest.mark.parametrize(
    ("path", "made_by"), [(paths.FP32_MODEL, "export"), (paths.INT8_MODEL, "quantize"), (paths.HOST, "host")]
)
def test_a_missing_input_names_the_stage_that_writes_it(project: Path, path: Path, made_by: str) -> None:
    path.unlink()
    with pytest.raises(StageError, match=rf"^Missing {path}\. Run {made_by} first\.$"):
        stage.run(Params())


def test_host_metrics_of_another_version_are_refused(project: Path) -> None:
    (project / paths.HOST).write_text("{}", encoding="utf-8")
    with pytest.raises(StageError, match=r"metrics/host\.json lacks the key 'cpu'\. Run host again\."):
        stage.run(Params())


@pytest.mark.parametrize(("threads", "cores", "warned"), [(2, 2, False), (3, 2, True), (1, 0.5, True)])
def test_more_threads_than_cores_is_a_warning(threads: int, cores: float, warned: bool) -> None:
    subject: Any = type("Subject", (), {"machine": HostSummary("test", "Model T", cores)})
    warnings = BenchResult(subject, threads, None).warnings()
    assert len(warnings) == warned
    assert all(f"serving.threads is {threads}, but this machine has {cores:g} core" in text for text in warnings)


def test_sigterm_ends_it_without_a_file_at_its_final_name(project: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BENCH, str(lock.lock_file()), "--debug"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(project)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(project.glob("bench-*")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Terminated: nothing half-written is left behind." in stderr
    assert not list((project / paths.METRICS).glob("*bench*"))
    assert not list(project.glob("bench-*"))


def test_help_names_what_it_reads_and_writes() -> None:
    text = subprocess.check_output([sys.executable, "-m", "stages.bench", "--help"], cwd=ROOT, text=True)
    for words in ("artifacts/model.int8.onnx", "metrics/bench.json", "Params ", "--self-check", f"{CHECKS} times"):
        assert words in " ".join(text.split())
