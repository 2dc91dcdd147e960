"""The pipeline under real DVC: what runs again, what a miss does, sweeps, and the same paths everywhere."""

import ast
import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common.base import paths, yaml12
from tests.pipeline.conftest import ROOT, Project

MIDDLE = ("export", "quantize", "parity", "bench")

KEYS = {
    "host": ["machine_id", "cpu.model", "cpu.isa", "cpu.cores", "ram_gb", "os", "python", "onnxruntime"],
    "export": ["drift.max_abs", "drift.flips", "eval.samples"],
    "quantize": [
        "status", "size.fp32_mb", "size.int8_mb", "size.times_smaller",
        "nodes.quantizable", "nodes.quantized", "nodes.kept_float",
    ],
    "parity": [
        "passed", "error.max_abs", "error.mean_abs", "error.p99_abs", "error.sqnr_db", "error.min_cosine",
        "decisions.agreement", "decisions.flips", "decisions.confident_flips", "decisions.flip_rate_high95",
        "task.fp32", "task.int8", "batch_effect.max_abs", "judged.samples", "judged.batch", "judged.isa",
    ],
    "bench": [
        "latency.fp32_p50_ms", "latency.int8_p50_ms", "latency.fp32_p99_ms", "latency.int8_p99_ms", "speedup.ratio",
        "speedup.low95", "speedup.high95", "speedup.verdict", "memory.fp32_mb", "memory.int8_mb", "load.fp32_ms",
        "load.int8_ms", "deploy", "reason",
    ],
}  # fmt: skip


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return out


def pipeline() -> dict[str, Any]:
    tree: dict[str, Any] = yaml12.load((ROOT / "dvc.yaml").read_text())
    return tree


def outs(stage: dict[str, Any]) -> set[str]:
    return (
        {name for each in stage["outs"] for name in ([each] if isinstance(each, str) else each)}
        if "outs" in stage
        else set()
    )


def test_dvc_yaml_and_the_code_name_the_same_paths() -> None:
    declared = set().union(*(outs(stage) for stage in pipeline()["stages"].values()))
    known = {value.as_posix() for value in vars(paths).values() if isinstance(value, Path)}
    sidecars = {f"{model.as_posix()}.data" for model in (paths.FP32_MODEL, paths.INT8_MODEL)}
    assert declared == known - {"params.yaml", "artifacts", "metrics"} | sidecars
    assert set(pipeline()["metrics"]) == {each for each in declared if each.endswith(".json")}


def test_each_stage_depends_on_its_code_and_on_nothing_of_another_room() -> None:
    for name, stage in pipeline()["stages"].items():
        assert stage["cmd"] == f"python -m stages.{name}"
        code = {each for each in stage["deps"] if each.startswith("stages/")}
        assert code == {f"stages/{name}", "stages/common"}


def test_rooms_import_common_and_themselves_only() -> None:
    for file in (ROOT / "stages").rglob("*.py"):
        room = file.relative_to(ROOT / "stages").parts[0]
        for node in ast.walk(ast.parse(file.read_text())):
            modules = (
                [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
            )
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for module in filter(None, modules):
                if module.startswith("stages.") and not file.parent.samefile(ROOT / "stages"):
                    assert module.split(".")[1] in {"common", room}, f"{file} imports {module}"


@pytest.mark.slow
def test_every_metric_of_the_interface_is_there_finite_or_null_with_a_reason(ran: Project) -> None:
    for stage, keys in KEYS.items():
        tree = flat(ran.metrics(stage))
        assert set(keys) <= set(tree), stage
        notes = {key.split(".")[-1] for key in tree if key.startswith(f"{stage}_notes.")}
        assert {key.split(".")[-1] for key in keys if tree[key] is None} <= notes, stage


@pytest.mark.slow
def test_metric_names_are_disjoint_from_params_and_from_each_other(ran: Project) -> None:
    params = set(flat(yaml12.load((ran.root / "params.yaml").read_text())))
    seen = set(params)
    for stage in KEYS:
        keys = set(flat(ran.metrics(stage)))
        assert not keys & seen, stage
        seen |= keys


@pytest.mark.slow
def test_a_second_run_runs_host_and_gate_alone_and_changes_nothing(ran: Project) -> None:
    again = ran.run("dvc", "repro")
    assert [line for line in again.stdout.splitlines() if line.startswith("Running stage")] == [
        "Running stage 'host':",
        "Running stage 'gate':",
    ]
    assert ran.changed() == ""
    ran.run("dvc", "status", "-q", *MIDDLE)
    ran.run("dvc", "metrics", "diff", "HEAD")


@pytest.mark.slow
def test_a_changed_host_measures_again_and_does_nothing_else(ran: Project) -> None:
    done = ran.run("taskset", "-c", "0", "dvc", "repro")
    running = {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")}
    assert running == {"host", "bench", "gate"}
    ran.restore()


@pytest.mark.slow
def test_a_miss_fails_repro_with_all_metrics_in_place_and_stays_a_row_in_an_experiment(project: Project) -> None:
    project.run("dvc", "repro")
    project.commit("Run")
    strict = ["-S", "parity.abs_tol=1e-9", "-S", "parity.mean_tol=1e-12"]
    project.run("dvc", "exp", "run", "--name", "strict", *strict)
    shown = project.run("dvc", "exp", "show", "--csv").stdout
    (row,) = [each for each in csv.DictReader(io.StringIO(shown)) if each["Experiment"] == "strict"]
    assert row["passed"] == "False"

    project.restore()
    project.set(parity={"abs_tol": 1e-9, "mean_tol": 1e-12})
    repro = project.run("dvc", "repro", check=False)
    assert repro.returncode != 0
    assert "Running stage 'quantize'" not in repro.stdout
    assert "The gate is shut" in repro.stderr
    assert project.metrics("parity")["passed"] is False
    for stage in KEYS:
        assert project.metrics(stage)
    assert project.run("python", "-m", "stages.gate", "--strict", check=False).returncode == 1


@pytest.mark.slow
def test_a_sweep_keeps_a_row_for_each_variant(ran: Project) -> None:
    ran.run(
        "dvc", "exp", "run", "--queue",
        "-S", "quantize.weight_type=QInt8,QUInt8", "-S", "quantize.per_channel=true,false",
    )  # fmt: skip
    ran.run("dvc", "queue", "start", "-j", "2")
    deadline = time.monotonic() + 300
    status = "Queued"
    while ("Running" in status or "Queued" in status) and time.monotonic() < deadline:
        time.sleep(0.5)
        status = ran.run("dvc", "queue", "status").stdout
    assert status.count("Success") == 4, status
    shown = ran.run("dvc", "exp", "show", "--csv").stdout
    rows = [row for row in csv.DictReader(io.StringIO(shown)) if row["Experiment"] and row["Experiment"] != "main"]
    assert len({row["error.max_abs"] for row in rows}) == 4, shown


@pytest.mark.slow
def test_trees_run_through_and_are_not_quantized(project: Project) -> None:
    project.set(export={"source": "tests.sources:forest"})
    done = project.run("dvc", "repro")
    assert project.metrics("quantize")["status"] == "nothing_to_quantize"
    assert project.metrics("bench")["deploy"] == "fp32"
    fp32, int8 = (project.root / each for each in (paths.FP32_MODEL, paths.INT8_MODEL))
    assert fp32.read_bytes() == int8.read_bytes()
    assert "deploy fp32" in done.stdout
    project.set(gate={"require_quantized": True})
    assert project.run("dvc", "repro", check=False).returncode != 0
    assert "require_quantized" in project.run("python", "-m", "stages.gate", check=False).stderr


def test_without_a_model_the_stage_to_run_is_named(project: Project) -> None:
    for stage in ("quantize", "parity", "bench"):
        done = project.run("python", "-m", f"stages.{stage}", check=False)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        assert done.stderr.startswith("Error: Missing ")
        assert done.stderr.count("\n") == 1
    quantize = project.run("python", "-m", "stages.quantize", check=False)
    assert quantize.stderr == "Error: Missing artifacts/model.onnx. Run export first.\n"
    assert json.dumps([each.name for each in (project.root / "artifacts").iterdir()]) == '[".gitignore"]'
