"""The pipeline under real DVC: what runs again, what a missed tolerance does, sweeps, and the keys of the metrics."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common import isa
from stages.common.base import paths, yaml12
from stages.host import cpu
from tests.pipeline.conftest import ROOT, Project

MIDDLE = ("export", "quantize", "parity", "bench")

HEADLINES = {
    "export": ["drift.max_abs", "drift.flips", "eval.samples", "clean.steps"],
    "quantize": [
        "status", "size.fp32_mb", "size.int8_mb", "size.times_smaller", "nodes.quantizable", "nodes.quantized",
        "nodes.kept_float", "saturation.share", "search.evals",
    ],
    "parity": [
        "passed", "diff.max_abs", "diff.mean_abs", "diff.nrmse", "diff.sqnr_db", "diff.min_cosine", "decisions.flips",
        "decisions.flip_rate_high95", "task.fp32", "task.int8", "batch_effect.max_abs", "judged.samples",
    ],
    "bench": [
        "speedup.ratio", "speedup.low95", "speedup.high95", "speedup.verdict", "latency.fp32_p50_ms",
        "latency.int8_p50_ms", "memory.fp32_mb", "memory.int8_mb", "load.fp32_ms", "load.int8_ms",
    ],
    "gate": ["open", "deploy"],
}  # fmt: skip
"""All keys of the metrics files. They are an interface: a new key needs a change of this table."""

HOST = ["machine_id", "cpu.model", "cpu.isa", "cpu.cores", "ram_gb", "os", "python", "onnxruntime"]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return out


def running(output: str) -> set[str]:
    """The stages that DVC ran."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def test_there_are_at_most_twelve_headlines_a_stage_and_forty_in_all() -> None:
    assert max(map(len, HEADLINES.values())) <= 12
    assert sum(map(len, HEADLINES.values())) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("stage", HEADLINES)
def test_the_headlines_are_these_and_a_null_has_its_reason(ran: Project, stage: str) -> None:
    tree = flat(ran.metrics(stage))
    assert sorted(tree) == sorted(HEADLINES[stage])
    assert all(isinstance(value, bool | int | float | None) or len(value) < 20 for value in tree.values())
    reasons = ran.metrics(f"details/{stage}")["null_reasons"]
    assert {key for key, value in tree.items() if value is None} <= set(reasons)


@pytest.mark.slow
def test_the_host_has_its_keys(ran: Project) -> None:
    assert set(HOST) <= set(flat(ran.metrics("host")))


@pytest.mark.slow
def test_names_of_metrics_are_disjoint_from_params_and_from_each_other(ran: Project) -> None:
    names = [name for keys in HEADLINES.values() for name in keys]
    params = flat(yaml12.load((ran.root / "params.yaml").read_text()))
    assert len(set(names)) == len(names)
    assert not set(names) & set(params)
    assert not any("error" in name.split(".") for name in names), "DVC takes that key for a failure"


@pytest.mark.slow
def test_metrics_show_fits_a_screen_and_complains_of_nothing(ran: Project) -> None:
    shown = ran.run("dvc", "metrics", "show")
    assert "failed" not in shown.stdout + shown.stderr


@pytest.mark.slow
def test_the_screen_of_a_run_is_short(ran: Project) -> None:
    """The lines that our stages print on a quiet machine, without those of DVC."""
    shown = (ran.root.parent / "shown.txt").read_text().split("To track the changes with git")[0]
    shown = re.sub(r"^(Waiting for another bench|While the models were timed).*?\.\n", "", shown, flags=re.S | re.M)
    dvc = ("Running stage", "> python -m stages.", "Updating lock file", "Generating lock file")
    ours = [line for block in shown.split("Running stage")[1:] for line in block.strip().splitlines()[2:]]
    ours = [line for line in ours if not line.startswith(dvc)]
    assert len(ours) <= 60, shown
    assert max(map(len, ours)) <= 160


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
@pytest.mark.skipif(cpu.cores() <= 1, reason="a machine with one core cannot pass for one with fewer")
def test_a_changed_host_measures_again_and_does_nothing_else(ran: Project) -> None:
    one_core = ("taskset", "-c", str(min(os.sched_getaffinity(0))))
    ran.run(*one_core, "dvc", "repro", "host")
    status = ran.status()
    ran.restore()
    assert set(status) == {"host", "bench", "gate"}


HIDDEN = ("unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /proc/cpuinfo && exec "$@"')
"""The start of a command line: the file that follows stands for /proc/cpuinfo in the command after it."""


@pytest.fixture(scope="module")
def old_cpu(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A file that describes an older CPU, and the best of its instruction sets for INT8."""
    file = tmp_path_factory.mktemp("cpu") / "cpuinfo"
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    name, flags = ("sse", "sse2") if isa.here() == "avx2" else ("avx2", "sse sse2 avx fma avx2")
    if " avx2" not in text:
        pytest.skip("this CPU has no AVX2, or is not x86")
    file.write_text(re.sub(r"^(flags\s*:).*$", rf"\1 fpu {flags}", text, flags=re.MULTILINE))
    if subprocess.run([*HIDDEN, str(file), "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not allow users to mount in a namespace of their own (unshare)")
    return str(file), name


@pytest.mark.slow
def test_parity_is_judged_again_on_another_instruction_set(ran: Project, old_cpu: tuple[str, str]) -> None:
    file, name = old_cpu
    done = ran.run(*HIDDEN, file, "dvc", "repro", "parity")
    judged = ran.metrics("details/parity")["judged"]["isa"]
    refusal = ran.run(*HIDDEN, file, "python", "-m", "stages.gate", check=False)
    ran.restore()
    assert running(done.stdout) == {"host", "parity"}
    assert (judged, refusal.returncode) == (name, 1)
    assert re.search("bench.json was measured on machine .* Run bench again", refusal.stderr)


@pytest.mark.slow
def test_parity_is_judged_again_by_another_version_of_onnx_runtime(ran: Project) -> None:
    host = ran.metrics("host") | {"onnxruntime": "1.0.0"}
    (ran.root / "metrics" / "host.json").write_text(json.dumps(host))
    status = ran.status()
    ran.restore()
    assert status.get("parity") == [{"changed deps": {"metrics/host.json": {"onnxruntime": "modified"}}}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"parity": {"abs_tol": 0.05}}, {"parity"}),
        ({"gate": {"max_size_ratio": 0.8}}, set()),
        ({"bench": {"seed": 1}}, {"bench"}),
        ("stages/common/compare/__init__.py", {"quantize", "parity"}),
        ("stages/common/rule.py", {"quantize", "parity"}),
        ("stages/bench/noise.py", {"bench"}),
        ("stages/report/__init__.py", set()),
    ],
)
def test_a_change_makes_stale_what_it_touches(ran: Project, change: Any, stale: set[str]) -> None:
    if isinstance(change, str):
        with (ran.root / change).open("a") as file:
            file.write("# A comment.\n")
    else:
        ran.set(**change)
    status = ran.status()
    ran.restore()
    assert set(status) == {"host", "gate"} | stale  # these two run every time


@pytest.mark.slow
def test_a_tolerance_and_a_limit_measure_no_speed(ran: Project) -> None:
    ran.set(parity={"abs_tol": 0.05}, gate={"max_size_ratio": 0.8})
    assert running(ran.run("dvc", "repro").stdout) == {"host", "parity", "gate"}
    ran.restore()


@pytest.mark.slow
def test_the_gate_refuses_what_was_not_run(ran: Project) -> None:
    """Params or code edited without a run, a missing model, a frozen stage, a broken dvc.yaml, edited metrics."""

    def refusal() -> str:
        done = ran.run("python", "-m", "stages.gate", "--strict", check=False)
        ran.restore()
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        return done.stderr

    ran.run("python", "-m", "stages.gate", "--strict")
    ran.set(quantize={"per_channel": False})
    assert "quantize.per_channel was changed from true to false. quantize must run: `dvc repro`." in refusal()
    with (ran.root / "stages/parity/stage.py").open("a") as file:
        file.write("# A comment.\n")
    assert "stages/parity was modified. parity must run: `dvc repro`." in refusal()
    (ran.root / paths.INT8_MODEL).unlink()
    assert (
        "artifacts/model.int8.onnx is missing. quantize must run: `dvc repro`, or `dvc pull` if a remote holds it."
        in refusal()
    )
    ran.run("dvc", "freeze", "export")
    frozen = ran.run("python", "-m", "stages.gate", "--strict").stdout
    assert "dvc.yaml freezes export: DVC does not check whether params, data or code changed there" in frozen
    ran.restore()
    (ran.root / "dvc.yaml").write_text("stages: [")
    assert "`dvc status` fails" in refusal()
    (ran.root / paths.PARITY).write_text((ran.root / paths.PARITY).read_text().replace("true", "false"))
    assert "metrics/parity.json was modified. parity must run" in refusal()


@pytest.mark.slow
def test_the_gate_refuses_metrics_in_a_clone_without_the_models(ran: Project, tmp_path: Path) -> None:
    ran.run("git", "clone", "-q", ".", str(tmp_path / "clone"))
    done = Project(tmp_path / "clone", ran.env).run("python", "-m", "stages.gate", "--strict", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r" artifacts/\S+ is missing\. export must run: `dvc repro`, or `dvc pull`", done.stderr)


@pytest.mark.slow
def test_a_miss_fails_repro_with_all_metrics_in_place(ran: Project) -> None:
    ran.set(parity={"abs_tol": 1e-9, "mean_tol": 1e-12})
    repro = ran.run("dvc", "repro", check=False)
    assert repro.returncode != 0
    assert "Running stage 'quantize'" not in repro.stdout
    assert "The gate is closed (parity)" in repro.stderr
    assert ran.metrics("parity")["passed"] is False
    for stage in HEADLINES:
        assert ran.metrics(stage)
    ran.restore()


@pytest.mark.slow
def test_a_sweep_keeps_a_row_for_each_variant_and_for_a_miss(ran: Project) -> None:
    ran.run("dvc", "exp", "run", "--queue", "-S", "parity.mean_tol=0.02", "-S", "parity.abs_tol=1e-9,0.05")
    ran.run("dvc", "queue", "start", "-j", "2")
    deadline = time.monotonic() + 300
    status = "Queued"
    while ("Running" in status or "Queued" in status) and time.monotonic() < deadline:
        time.sleep(0.5)
        status = ran.run("dvc", "queue", "status").stdout
    assert status.count("Success") == 2, status
    shown = ran.run("dvc", "exp", "show", "--csv").stdout
    rows = [row for row in csv.DictReader(io.StringIO(shown)) if row["Experiment"] not in ("", "main")]
    assert {(row["parity.abs_tol"], row["passed"]) for row in rows} == {("1e-09", "False"), ("0.05", "True")}, shown
    (command,) = (line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("dvc exp show"))
    table = ran.run(*shlex.split(command)).stdout
    assert table.count("Success") == 2
    assert max(map(len, table.splitlines())) <= 160


def test_without_a_model_the_stage_to_run_is_named(project: Project) -> None:
    for stage in ("quantize", "parity", "bench"):
        done = project.run("python", "-m", f"stages.{stage}", check=False)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        assert done.stderr.startswith("Error: Missing ")
        assert done.stderr.count("\n") == 1
    quantize = project.run("python", "-m", "stages.quantize", check=False)
    assert quantize.stderr == "Error: Missing artifacts/model.onnx. Run export first.\n"
    assert json.dumps([file.name for file in (project.root / "artifacts").iterdir()]) == '[".gitignore"]'
