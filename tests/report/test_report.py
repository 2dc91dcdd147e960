"""The Markdown report: verdict first, what changed, and no milliseconds of another machine."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.report.trees import DETAILS, FRONTIER, METRICS, Repository, changed, row, rule


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def section(text: str, start: str) -> str:
    """From the first line that starts with `start` to the next collapsed part or its end."""
    return text[text.index(start) :].split("</details>", maxsplit=1)[0]


def test_the_verdict_comes_first(repository: Repository) -> None:
    printed = repository.report()
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.startswith("## ✅ Deploy INT8\n\nParity passed, and INT8 is faster.\n")
    assert (
        "Answers judged on 300 samples in batches of 1 on avx2. Timed in batches of 1 with 1 thread" in printed.stdout
    )
    assert row(printed.stdout, "signal to quantization noise")[1] == "40 dB"
    assert row(printed.stdout, "speed-up (95 % interval)")[1] == "2× (1.9 to 2.1)"


def test_a_closed_gate_shows_its_reason_the_failed_rule_first_and_the_command_to_run(repository: Repository) -> None:
    failed = rule("max_size_ratio", 0.95, 0.9, -0.05, "failed", message="INT8 is not smaller.")
    details = changed(
        DETAILS,
        gate__rules=[DETAILS["gate"]["rules"][1], failed],
        gate__reason="INT8 has 0.95 of the size, at most 0.9 is allowed.",
        gate__advice="dvc exp run -S quantize.method=static",
        parity__advice=[{"command": "dvc exp run -S 'quantize.exclude_nodes=[a]'", "effect": "leaves 0.01"}],
    )
    repository.write(changed(METRICS, gate__open=False, gate__deploy="fp32"), details)
    text = repository.report("--base", "HEAD").stdout
    assert text.startswith(
        "## ❌ The gate is closed, deploy fp32\n\nINT8 has 0.95 of the size, at most 0.9 is allowed."
    )
    assert "**Run next**\n\n```\ndvc exp run -S quantize.method=static\n```" in text
    assert "- `dvc exp run -S 'quantize.exclude_nodes=[a]'`: leaves 0.01" in text
    assert "**1 of 4 rules failed**" in text
    assert text.index("❌\N{NO-BREAK SPACE}failed") < text.index("✅\N{NO-BREAK SPACE}passed")
    assert row(text, "`max_size_ratio`") == ["`max_size_ratio`", "", "0.95", "0.9", "-0.05", "INT8 is not smaller."]
    assert row(text, "gate open")[1:3] == ["yes", "no"]


def test_what_parity_tried_is_collapsed_where_the_gate_is_open(repository: Repository) -> None:
    advice = [{"command": "dvc exp run -S quantize.activation_scale=row", "effect": "passes"}]
    repository.write(METRICS, changed(DETAILS, parity__advice=advice, parity__tried="Static does not help."))
    text = section(repository.report().stdout, "<details><summary>What else parity tried")
    assert "- `dvc exp run -S quantize.activation_scale=row`: passes\n- Static does not help." in text


def test_every_rule_stands_with_value_limit_margin_and_output(repository: Repository) -> None:
    text = repository.report().stdout
    assert "**All 4 rules hold**" in text
    assert row(text, "`abs_tol`") == ["`abs_tol`", "`prob\\|s`", "0.02", "0.04", "0.02", "sample 7"]
    assert row(text, "`max_flip_rate`")[2:] == ["–", "–", "–", ""]
    assert row(text, "`min_speedup`")[2:5] == ["1.9", "0.97", "0.93"]


def test_a_single_rule_is_named_in_the_singular(repository: Repository) -> None:
    only = DETAILS["gate"]["rules"][:1]
    repository.write(METRICS, changed(DETAILS, gate__rules=only, parity__rules=[]))
    assert "**The only rule holds**" in repository.report().stdout


def test_the_gate_decides_whatever_the_figures_are(repository: Repository) -> None:
    repository.write(changed(METRICS, parity__passed=False, quantize__size__int8_mb=9.0))
    assert repository.report().stdout.startswith("## ✅ Deploy INT8")


def test_what_changed_stands_open_and_the_rest_is_collapsed(repository: Repository) -> None:
    metrics = changed(
        METRICS,
        parity__diff={**METRICS["parity"]["diff"], "max_abs": 0.03, "sqnr_db": 38.0, "min_cosine": 0.998},
        bench__speedup={"ratio": 1.5, "low95": 1.4, "high95": 1.6, "verdict": "faster"},
        quantize__size__int8_mb=1.2,
    )
    repository.write(metrics, changed(DETAILS, bench__measured__sha256__int8="2" * 64), "parity: {abs_tol: 0.05}\n")
    text = repository.report("--base", "main").stdout
    opened, rest = text.split("<details>")[:2]
    assert row(opened, "largest difference")[1:] == ["0.02", "0.03", "+0.01 (+50.0%)", "🔴\N{NO-BREAK SPACE}worse"]
    assert row(opened, "speed-up (95 % interval)")[1:] == [
        "2× (1.9 to 2.1)",
        "1.5× (1.4 to 1.6)",
        "-0.5× (-25.0%)",
        "🔴\N{NO-BREAK SPACE}worse",
    ]
    assert row(opened, "INT8 file")[1:] == ["1 MB", "1.2 MB", "+0.2 MB (+20.0%)", "🔴\N{NO-BREAK SPACE}worse"]
    assert row(text, "signal to quantization noise")[3] == "-2 dB", "a share of a logarithm means nothing"
    assert row(text, "smallest cosine similarity")[3] == "-0.001"
    assert row(rest, "fp32 file")[1:] == ["4 MB", "4 MB", "", ""]
    assert row(text, "`parity.abs_tol`")[1:] == ["`0.04`", "`0.05`"]
    assert row(text, "`quantize.weight_type`")[1:] == ["`QInt8`", "–"]


def test_a_repeat_of_the_same_models_calls_nothing_better_or_worse(repository: Repository) -> None:
    metrics = changed(
        METRICS,
        bench__speedup={"ratio": 3.0, "low95": 2.9, "high95": 3.1, "verdict": "faster"},
        bench__latency={"fp32_p50_ms": 3.0, "int8_p50_ms": 1.0},
        bench__memory={"fp32_mb": 16.0, "int8_mb": 1.0},
        bench__load={"fp32_ms": 30.0, "int8_ms": 1.0},
    )
    repository.write(metrics)
    text = repository.report("--base", "main").stdout
    assert "better" not in text
    assert "worse" not in text
    assert row(text, "speed-up (95 % interval)")[-1] == "same\N{NO-BREAK SPACE}model"


def test_a_change_within_noise_is_called_so(repository: Repository) -> None:
    metrics = changed(
        METRICS,
        bench__speedup={"ratio": 2.15, "low95": 2.05, "high95": 2.25, "verdict": "faster"},
        bench__latency={"fp32_p50_ms": 1.3, "int8_p50_ms": 0.4},
        bench__memory={"fp32_mb": 8.0, "int8_mb": 3.9},
        parity__decisions={"flips": 1, "flip_rate_high95": 0.0158},
        parity__task={"fp32": 0.97, "int8": 0.9667},
    )
    repository.write(metrics, changed(DETAILS, bench__measured__sha256__int8="2" * 64))
    text = repository.report("--base", "main").stdout
    for label in ("speed-up (95 % interval)", "INT8, median call", "INT8", "decisions flipped", "task metric of INT8"):
        assert row(text, label)[-1] == "within\N{NO-BREAK SPACE}noise", label
    assert row(text, "fp32, median call")[-1] == "same\N{NO-BREAK SPACE}model"
    assert "better" not in text.split("<sub>")[0].replace("called better", "")


def test_a_change_that_the_same_fp32_file_shows_too_is_the_machines(repository: Repository) -> None:
    details = changed(DETAILS, bench__measured__sha256__int8="2" * 64)
    repository.write(changed(METRICS, bench__load={"fp32_ms": 10.0, "int8_ms": 10.0}), details)
    assert row(repository.report("--base", "main").stdout, "INT8, load")[-1] == "🔴\N{NO-BREAK SPACE}worse"
    repository.write(changed(METRICS, bench__load={"fp32_ms": 20.0, "int8_ms": 10.0}), details)
    assert row(repository.report("--base", "main").stdout, "INT8, load")[-1] == "within\N{NO-BREAK SPACE}noise"


def test_milliseconds_are_not_called_where_both_models_changed(repository: Repository) -> None:
    metrics = changed(
        METRICS,
        bench__latency={"fp32_p50_ms": 3.0, "int8_p50_ms": 1.5},
        bench__load={"fp32_ms": 30.0, "int8_ms": 12.0},
    )
    repository.write(metrics, changed(DETAILS, bench__measured__sha256={"fp32": "3" * 64, "int8": "2" * 64}))
    text = repository.report("--base", "main").stdout
    for label in ("INT8, median call", "fp32, median call", "INT8, load", "fp32, load"):
        assert row(text, label)[-1] == ""
    assert row(text, "INT8, load")[3] == "+8 ms (+200.0%)"


def test_launches_that_came_near_those_of_the_base_are_noise(repository: Repository) -> None:
    base = changed(DETAILS, bench__spread={"load": {"int8_ms": [4.0, 6.0]}})
    repository.write(METRICS, base)
    repository.commit()
    for low, mark in ((5.9, "within\N{NO-BREAK SPACE}noise"), (6.1, "🔴\N{NO-BREAK SPACE}worse")):
        head = changed(base, bench__spread={"load": {"int8_ms": [low, 12.0]}}, bench__measured__sha256__int8="2" * 64)
        repository.write(changed(METRICS, bench__load={"fp32_ms": 10.0, "int8_ms": 10.0}), head)
        assert row(repository.report("--base", "main").stdout, "INT8, load")[-1] == mark


def test_milliseconds_of_another_machine_are_not_compared(repository: Repository) -> None:
    metrics = changed(
        METRICS,
        host={"machine_id": "b" * 12, "cpu": {"model": "CPU B", "isa": "amx", "cores": 1}, "onnxruntime": "1.32.0"},
        bench__latency__int8_p50_ms=0.1,
        bench__speedup={"ratio": 4.0, "low95": 3.9, "high95": 4.1, "verdict": "faster"},
        parity__diff__max_abs=0.01,
    )
    details = changed(DETAILS, bench__measured__machine_id="b" * 12, parity__judged__isa="amx")
    repository.write(metrics, details)
    text = repository.report("--base", "main").stdout
    assert "> ⚠️ The base was timed on another machine.<br>Milliseconds, memory and speed-ups are not compared." in text
    assert "Base: CPU A, avx2, 2 cores, ONNX Runtime 1.32.0 (machine `aaaaaaaaaaaa`)." in text
    assert row(text, "INT8, median call")[1:] == ["not compared", "0.1 ms", "", ""]
    assert row(text, "speed-up (95 % interval)")[1:] == ["not compared", "4× (3.9 to 4.1)", "", ""]
    assert "another instruction set: avx2, here amx" in text
    assert row(text, "largest difference")[-1] == ""
    assert "CPU B, amx, 1 core," in text


def test_all_batch_sizes_with_the_base_beside_them(repository: Repository) -> None:
    details = changed(DETAILS, bench__measured__sha256__int8="2" * 64)
    details["bench"]["batches"][0] |= {"speedup": 3.0, "low95": 2.9, "high95": 3.1}
    repository.write(METRICS, details)
    text = section(
        repository.report("--base", "main").stdout, "<details><summary>Speed at 2 batch sizes: 1 better</summary>"
    )
    assert row(text, "1")[1:] == ["1 ms", "0.5 ms", "3× (2.9 to 3.1)", "faster", "2× (1.9 to 2.1)", "better"]
    assert "The model has a fixed batch." in row(text, "8")


def test_what_was_quantized_what_was_kept_and_the_worst_samples_are_collapsed(repository: Repository) -> None:
    text = repository.report().stdout
    nodes = section(text, "<details><summary>What was quantized: 2 INT8, 1 kept in float")
    assert row(nodes, "QInt8 per channel")[1:] == ["2", "32.77 kB", "`/enc/MatMul`, `/dec/MatMul`", "40.5 dB"]
    assert row(nodes, "no fast INT8 kernel")[-1] == "`conv\\|<b>`"
    assert "- Folded 1 constant." in nodes
    worst = section(text, "<details><summary>1 sample that moved most")
    assert row(worst, "`prob\\|s`")[1:] == ["3", "0.5", "0.52", "0.02"]
    notes = section(text, "<details><summary>2 notes")
    assert "- parity: In batches of 64 the answers move by up to 0.17." in notes
    assert "- bench: `memory.int8_mb` was not measured: this system has no /proc" in notes


def test_the_models_that_auto_made_are_collapsed(repository: Repository) -> None:
    assert "Method auto" not in repository.report().stdout
    (repository.root / "metrics/details/frontier.csv").write_text(FRONTIER)
    text = section(repository.report().stdout, "<details><summary>Method auto built 3 models, 2 within the tolerances")
    assert row(text, "1, frontier") == ["1, frontier", "3", "1 MB", "–", "189%"]
    assert row(text, "✅\N{NO-BREAK SPACE}chosen")[1:] == ["3, add back", "2", "1.4 MB", "2× (1.9 to 2.1)", "45%"]


def test_what_disturbed_the_timing_is_a_note(repository: Repository) -> None:
    repository.write(METRICS, changed(DETAILS, bench__noise={"finding": "45% of the rounds were disturbed"}))
    text = repository.report().stdout
    assert "- bench: while the models were timed, 45% of the rounds were disturbed." in text


def test_the_same_files_give_the_same_bytes(repository: Repository) -> None:
    repository.write(changed(METRICS, parity__diff__max_abs=0.03), DETAILS, "parity: {abs_tol: 0.05}\n")
    first, second = (repository.report("--base", "main").stdout for _ in range(2))
    assert first == second
    assert len(first) > 1000


def test_a_base_of_an_older_layout_leaves_figures_out(repository: Repository) -> None:
    shutil.rmtree(repository.root / "metrics/details")
    (repository.root / "metrics/gate.json").unlink()
    old = {"error": {"max_abs": 0.5}, "passed": True, "judged": {"samples": 300, "batch": 1, "isa": "avx2"}}
    (repository.root / "metrics/parity.json").write_text(json.dumps(old))
    (repository.root / "metrics/quantize.json").write_text("{broken")
    repository.commit()
    repository.write()
    printed = repository.report("--base", "HEAD")
    assert printed.returncode == 0, printed.stderr
    assert row(printed.stdout, "largest difference")[1:] == ["–", "0.02", "", ""]
    assert row(printed.stdout, "INT8 file")[1:] == ["–", "1 MB", "", ""]
    assert row(printed.stdout, "gate open")[1:] == ["–", "yes", "", ""]
    assert row(printed.stdout, "parity passed")[1:] == ["yes", "yes", "", ""]


@pytest.mark.parametrize(
    ("params", "key"),
    [
        ("parity: {abs_tol: 0.05, outputs: {}}", "parity.abs_tol"),
        ("parity: {abs_tol: 0.04, outputs: {prob: {abs_tol: 0.01}}}", "parity.outputs.prob"),
        ("parity: {abs_tol: 0.04, outputs: {}, padding: mask}", "parity.padding"),
        ("parity: {outputs: {}}", "parity.abs_tol"),
        ("", "parity"),
        ("parity: {abs_tol: 0.04, outputs: {}}\ngate: {min_speedup: 1, max_size_ratio: 0.9}", "gate.min_speedup"),
        ("parity: {abs_tol: 0.04, outputs: {}}\ngate: {require_quantized: true}", "gate.require_quantized"),
    ],
)
def test_params_that_changed_since_the_run_are_named(repository: Repository, params: str, key: str) -> None:
    ran_with = {"parity": {"parity": {"abs_tol": 0.04, "outputs": {}}}, "gate": {"quantize": {"weight_type": "QUInt8"}}}
    lock = {"stages": {stage: {"params": {"params.yaml": tree}} for stage, tree in ran_with.items()}}
    (repository.root / "dvc.lock").write_text(json.dumps(lock))
    rules = [*DETAILS["gate"]["rules"], rule("require_quantized", "quantized", None, None, "off")]
    details = changed(DETAILS, gate__rules=rules)
    repository.write(details=details, params="parity: {abs_tol: 0.04, outputs: {}}\n")
    assert "Run `dvc repro`" not in repository.report().stdout
    repository.write(details=details, params=params)
    printed = repository.report().stdout
    assert printed.startswith("## ⚠️ Outdated: Deploy INT8\n")
    assert f"> ⚠️ `{key}` changed since these figures were measured. Run `dvc repro`." in printed


@pytest.mark.parametrize("arguments", [["--base", "main"], ["--experiments"]])
def test_without_a_commit_git_says_why_there_is_nothing_to_compare(
    repository: Repository, arguments: list[str]
) -> None:
    (repository.root / ".git/refs/heads/main").unlink()
    assert repository.report(*arguments).stderr.startswith("Error: git cannot read HEAD here: it has no commit.")
    shutil.rmtree(repository.root / ".git")
    assert repository.report(*arguments).stderr.startswith("Error: git cannot read HEAD here: not a git repository")


@pytest.mark.parametrize(
    ("arguments", "broken", "message"),
    [
        (["--base", "nowhere"], {}, "--base nowhere is not a revision of this git repository"),
        ([], {"gate.json": None}, "Missing metrics/gate.json. Run gate first."),
        ([], {"details/parity.json": '{"rules": [{"rule": 1}]}'}, "The rules in metrics/details/parity.json are of"),
    ],
)
def test_what_cannot_be_reported(
    repository: Repository, arguments: list[str], broken: dict[str, Any], message: str
) -> None:
    for name, text in broken.items():
        path = repository.root / "metrics" / name
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    printed = repository.report(*arguments)
    assert printed.returncode == 1
    assert printed.stdout == ""
    assert printed.stderr.startswith(f"Error: {message}")
    assert printed.stderr.count("\n") == 1
