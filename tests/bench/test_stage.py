import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from skl2onnx import to_onnx

from stages.bench.inputs import findings
from stages.bench.selfcheck import CHECKS
from stages.bench.stage import bench
from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.params import Params, load
from stages.common.data import evaldata
from tests import sources
from tests.bench.conftest import write_project

ROOT = Path(__file__).resolve().parents[2]

DESIGN_KEYS = {
    "latency": ("fp32_p50_ms", "int8_p50_ms", "fp32_p99_ms", "int8_p99_ms"),
    "speedup": ("ratio", "low95", "high95", "verdict"),
    "memory": ("fp32_mb", "int8_mb"),
    "load": ("fp32_ms", "int8_ms"),
}


def params(project: Path, text: str) -> Params:
    (project / "params.yaml").write_text(text, encoding="utf-8")
    return load(project / "params.yaml")


def metrics(project: Path) -> Any:
    text = (project / paths.BENCH).read_text(encoding="utf-8")
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def rows(project: Path, path: Path) -> list[dict[str, str]]:
    with (project / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_quantized_model_is_measured_from_end_to_end(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench(params(project, "bench: {max_seconds: 0.1, batch_sizes: [1, 4]}"))
    found = metrics(project)
    for group, keys in DESIGN_KEYS.items():
        for key in keys:
            assert found[group][key] is not None or key in found["bench_notes"]
    assert found["speedup"]["low95"] <= found["speedup"]["ratio"] <= found["speedup"]["high95"]
    assert found["deploy"] in ("int8", "fp32")
    assert found["measured"]["launches"] >= 8
    assert found["measured"]["machine_id"] == "test"
    assert "Model T, avx2, 1 thread, batch 1" in found["reason"]
    assert set(found["batch_1"]) == set(found["batch_4"])
    assert found["batch_1"]["speedup"] == found["speedup"]["ratio"]
    assert [row["batch"] for row in rows(project, paths.BENCH_SPEEDUP)] == ["1", "4"]
    assert {row["operator"] for row in rows(project, paths.OPERATORS)} >= {"Gemm"}
    curve = [float(row["fp32_ms"]) for row in rows(project, paths.BENCH_LATENCY)]
    assert curve == sorted(curve)
    out = capsys.readouterr().out
    assert found["reason"] in out
    assert "95 % interval" in out


@pytest.mark.slow
def test_a_forest_is_the_same_model_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, _ = sources.forest(0)
    write_project(tmp_path, to_onnx(model, x[:1], options={"zipmap": False}), None, {"X": x})
    monkeypatch.chdir(tmp_path)
    bench(params(tmp_path, "bench: {max_seconds: 0.1, batch_sizes: [], memory: false}"))
    found = metrics(tmp_path)
    assert found["deploy"] == "fp32"
    assert "gain nothing" in found["reason"]
    assert (found["speedup"]["ratio"], found["speedup"]["verdict"]) == (1, "equivalent")
    assert found["latency"]["fp32_p50_ms"] == found["latency"]["int8_p50_ms"]
    assert found["memory"]["fp32_mb"] is None
    assert found["bench_notes"]["fp32_mb"] == "bench.memory is false"
    assert found["control"]["low95"] < found["control"]["high95"]  # measured, where the speed-up is 1 by construction


@pytest.mark.slow
def test_a_model_with_a_fixed_batch_is_measured_there_alone(project: Path) -> None:
    model = onnx.load(paths.FP32_MODEL)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    write_twice(model)
    bench(params(project, "{serving: {batch_size: 2}, bench: {max_seconds: 0.1, batch_sizes: [8], memory: false}}"))
    found = metrics(project)
    assert found["measured"]["batch"] == 3
    assert found["batch_3"]["fp32_p50_ms"] > 0
    assert set(found["batch_8"].values()) == {None}
    assert "fix the batch at 3" in found["bench_notes"]["batch_8"]


@pytest.mark.slow
def test_whole_feeds_are_given_as_they_are(project: Path) -> None:
    model = sources.linear()
    write_twice(model)
    folder = project / "feeds"
    evaldata.write(folder, {"x": np.ones((6, 5, 4), np.float32)}, None, "feeds", seed=0)
    (project / paths.EVAL).rename(project / "away")
    folder.rename(project / paths.EVAL)
    bench(params(project, "bench: {max_seconds: 0.1, memory: false}"))
    found = metrics(project)
    assert found["latency"]["fp32_p50_ms"] > 0
    assert found["batch_8"]["speedup"] is None
    assert "whole feeds" in found["bench_notes"]["batch_8"]


def write_twice(model: onnx.ModelProto) -> None:
    """As quantize does where nothing can be quantized."""
    onnx.save(model, paths.FP32_MODEL)
    onnx.save(model, paths.INT8_MODEL)
    paths.QUANTIZE.write_text('{"status": "nothing_to_quantize"}', encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "made_by"),
    [
        (paths.FP32_MODEL, "export"),
        (paths.INT8_MODEL, "quantize"),
        (paths.HOST, "host"),
        (paths.QUANTIZE, "quantize"),
        (paths.PARITY, "parity"),
    ],
)
def test_a_missing_input_names_the_stage_that_writes_it(project: Path, path: Path, made_by: str) -> None:
    path.unlink()
    with pytest.raises(StageError, match=rf"^Missing {path}\. Run {made_by} first\.$"):
        bench(Params())


def test_metrics_of_another_version_are_refused(project: Path) -> None:
    (project / paths.PARITY).write_text("{}", encoding="utf-8")
    with pytest.raises(StageError, match="'passed'"):
        findings()


def test_a_parity_that_is_not_known_has_not_passed(project: Path) -> None:
    (project / paths.PARITY).write_text('{"passed": null}', encoding="utf-8")
    assert not findings().parity_passed


def test_sigterm_ends_it_without_a_file_at_its_final_name(project: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.bench", "--debug"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(project)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(project.glob("bench-*")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Terminated: nothing half-written is left behind." in complaint
    assert not list((project / paths.METRICS).glob("*bench*"))
    assert not list(project.glob("bench-*"))


def test_help_says_what_it_reads_and_writes() -> None:
    told = subprocess.check_output([sys.executable, "-m", "stages.bench", "--help"], cwd=ROOT, text=True)
    for word in ("artifacts/model.int8.onnx", "metrics/bench.json", "Params ", "--self-check", f"{CHECKS} times"):
        assert word in " ".join(told.split())
