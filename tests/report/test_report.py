"""The report: verdict first, what changed, and no milliseconds of another machine."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

METRICS: dict[str, dict[str, Any]] = {
    "host": {"machine_id": "a" * 12, "cpu": {"model": "CPU A", "isa": "avx2", "cores": 2}, "onnxruntime": "1.32.0"},
    "export": {"drift": {"max_abs": 1e-6, "flips": 0}, "eval": {"samples": 400}},
    "quantize": {
        "status": "quantized",
        "size": {"fp32_mb": 4.0, "int8_mb": 1.0, "times_smaller": 4.0},
        "nodes": {"quantizable": 3, "quantized": 3, "kept_float": 0},
    },
    "parity": {
        "passed": True,
        "error": {"max_abs": 0.02, "p99_abs": 0.002, "mean_abs": 1e-4, "sqnr_db": None, "min_cosine": 0.999},
        "judged": {"samples": 300, "batch": 1, "isa": "avx2"},
    },
    "bench": {
        "speedup": {"ratio": 2.0, "low95": 1.9, "high95": 2.1, "verdict": "faster"},
        "latency": {"fp32_p50_ms": 1.0, "int8_p50_ms": 0.5},
        "deploy": "int8",
        "reason": "Parity passed, and INT8 is faster.",
    },
}


class Repository:
    """A git repository with metrics and params."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "-q", "-b", "main")
        self.write(METRICS, "parity: {abs_tol: 0.04}\n")
        self.commit()

    def write(self, metrics: dict[str, dict[str, Any]], params: str) -> None:
        (self.root / "metrics").mkdir(exist_ok=True)
        for stage, tree in metrics.items():
            (self.root / "metrics" / f"{stage}.json").write_text(json.dumps(tree))
        (self.root / "params.yaml").write_text(params)

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=self.root, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "x")

    def report(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "stages.report", *arguments],
            cwd=self.root,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/local/bin"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def changed(**values: Any) -> dict[str, dict[str, Any]]:
    tree = deepcopy(METRICS)
    for key, value in values.items():
        stage, *path = key.split("__")
        node = tree[stage]
        for each in path[:-1]:
            node = node[each]
        node[path[-1]] = value
    return tree


def row(text: str, label: str) -> list[str]:
    (line,) = [each for each in text.splitlines() if each.startswith(f"| {label} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_verdict_comes_first(repository: Repository) -> None:
    shown = repository.report()
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("## ✅ Deploy int8\n\nParity passed, and INT8 is faster.")
    assert "judged on 300 samples, at batch 1, on avx2" in shown.stdout
    assert row(shown.stdout, "SQNR, dB")[1] == "unknown"


def test_a_shut_gate_names_the_rules_that_failed(repository: Repository) -> None:
    repository.write(changed(parity__passed=False, quantize__size__int8_mb=3.9), "{}")
    shown = repository.report("--base", "HEAD").stdout
    assert shown.startswith("## ❌ The gate is shut: same answers, size, INT8 over fp32")
    assert "0.975 of the size" in shown


def test_what_changed_stands_open_and_the_rest_is_folded(repository: Repository) -> None:
    metrics = changed(parity__error__max_abs=0.03, bench__speedup__ratio=1.8, quantize__size__int8_mb=1.0001)
    repository.write(metrics, "parity: {abs_tol: 0.05}\n")
    shown = repository.report("--base", "main").stdout
    open_part, folded = shown.split("<details>")
    assert row(open_part, "largest difference") == ["largest difference", "0.02", "0.03", "+0.01 (+50.0%)", "worse"]
    assert row(open_part, "speed-up") == ["speed-up", "2", "1.8", "-0.2 (-10.0%)", "worse"]
    assert row(folded, "size of INT8, MB")[3] == ""
    assert row(shown, "`parity.abs_tol`") == ["`parity.abs_tol`", "`0.04`", "`0.05`"]
    assert shown.count("| size of fp32, MB ") == 1


def test_milliseconds_of_another_machine_are_not_compared(repository: Repository) -> None:
    other = changed(host__machine_id="b" * 12, host__cpu={"model": "CPU B", "isa": "avx512_vnni", "cores": 4})
    other["bench"]["latency"]["int8_p50_ms"] = 0.1
    other["bench"]["speedup"]["ratio"] = 4.0
    repository.write(other, "{}")
    shown = repository.report("--base", "main").stdout
    assert "The base was timed on another machine, CPU A, avx2" in shown
    assert row(shown, "p50 of INT8, ms")[1:] == ["another machine", "0.1", "", ""]
    assert row(shown, "speed-up")[4] == "better"


def test_a_base_without_metrics_or_with_broken_ones_has_unknown_figures(repository: Repository) -> None:
    (repository.root / "metrics/parity.json").write_text("{broken")
    (repository.root / "metrics/bench.json").unlink()
    repository.commit()
    repository.write(METRICS, "{}")
    shown = repository.report("--base", "HEAD")
    assert shown.returncode == 0, shown.stderr
    assert row(shown.stdout, "largest difference")[1:3] == ["unknown", "0.02"]
    assert row(shown.stdout, "speed-up")[1:3] == ["unknown", "2"]


@pytest.mark.parametrize(
    ("arguments", "remove", "words"),
    [
        (["--base", "nowhere"], None, "--base nowhere is no revision of this git repository"),
        ([], "bench", "Missing metrics/bench.json. Run bench first."),
    ],
)
def test_what_cannot_be_reported(repository: Repository, arguments: list[str], remove: str | None, words: str) -> None:
    if remove:
        (repository.root / "metrics" / f"{remove}.json").unlink()
    shown = repository.report(*arguments)
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert shown.stderr.startswith(f"Error: {words}")
    assert shown.stderr.count("\n") == 1
