"""The steps of the workflows, run one by one in a clean clone of a bare repository, as a runner does."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.report.trees import ROOT, row

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
IDENTITY = ["-c", "user.name=t", "-c", "user.email=t@example.org"]

STAGE = '''
"""Stands for a stage: writes the metrics that the real one would."""
import json, os, sys
from pathlib import Path
from tests.report.trees import DETAILS, METRICS, NODES, WORST, changed
stage = sys.argv[1]
Path("models/data.bin").read_bytes()
weight_type = json.loads(Path("params.yaml").read_text())["quantize"]["weight_type"]
metrics, details = METRICS, DETAILS
machine = os.environ.get("MACHINE", "a" * 12)
metrics = changed(metrics, host__machine_id=machine)
details = changed(details, bench__measured__machine_id=machine)
if weight_type == "QUInt8":
    metrics = changed(metrics, parity__diff__max_abs=0.09, parity__passed=False, gate__open=False, gate__deploy="fp32")
    details = changed(details, gate__reason="Parity missed.", bench__measured__sha256__int8="2" * 64)
for folder, tree in (("metrics", metrics), ("metrics/details", details)):
    if stage in tree:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, stage + ".json").write_text(json.dumps(tree[stage]))
if stage == "quantize":
    Path("metrics/details/nodes.csv").write_text(NODES)
if stage == "parity":
    Path("metrics/details/parity_worst.csv").write_text(WORST)
if stage == "gate" and not metrics["gate"]["open"]:
    sys.exit("Error: The gate is closed.")
'''

OUTS = {
    "export": [],
    "quantize": ["details/nodes.csv"],
    "parity": ["details/parity_worst.csv"],
    "bench": [],
    "gate": [],
}


def pipeline() -> str:
    stages: dict[str, Any] = {
        "host": {
            "cmd": "python stage.py host",
            "always_changed": True,
            "outs": [{"metrics/host.json": {"cache": False}}],
        }
    }
    for name, more in OUTS.items():
        outs = [f"metrics/{name}.json", f"metrics/details/{name}.json", *(f"metrics/{path}" for path in more)]
        stages[name] = {
            "cmd": f"python stage.py {name}",
            "deps": ["models/data.bin", *(["metrics/host.json"] if name == "bench" else [])],
            "params": ["quantize"],
            "outs": [{out: {"cache": False}} for out in outs],
            **({"always_changed": True} if name == "gate" else {}),
        }
    stages["gate"]["deps"] += [f"metrics/{name}.json" for name in OUTS if name != "gate"]
    return str(yaml.safe_dump({"stages": stages}))


class Runner:
    """A machine that runs the steps of a workflow in its own clone, which holds only what git tracks."""

    def __init__(self, root: Path, origin: Path, machine: str = "b" * 12) -> None:
        self.clone = root / "clone"
        git(root, "clone", "-q", str(origin), str(self.clone))
        self.environment = {
            "BASE_SHA": git(self.clone, "rev-parse", "HEAD~1").strip(),
            "GITHUB_PATH": str(root / "path"),
            "GITHUB_STEP_SUMMARY": str(root / "summary"),
            "HOME": str(root),
            "MACHINE": machine,
            "PATH": PATH,
            "PYTHONPATH": str(ROOT),
        }
        self.summary = root / "summary"

    def run(self, command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, shell=True, cwd=self.clone, env=self.environment, capture_output=True, text=True, check=False
        )

    def steps(self, *, base: bool = True) -> dict[str, int]:
        """Run every step of `models.yml` that has a script, even after a failed one, and return the exit codes by name.

        Without `base`, what measures the base is left out, which costs as much as the pipeline.
        """
        workflow = yaml.safe_load((ROOT / ".github/workflows/models.yml").read_text())
        steps = [
            step
            for step in workflow["jobs"]["pipeline"]["steps"]
            if "run" in step and step["name"] != "Environment" and (base or not step["name"].startswith("Base"))
        ]
        return {step["name"]: self.run(step["run"]).returncode for step in steps}

    @property
    def report(self) -> str:
        return (self.clone / "ci-report/report.md").read_text()


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project with a finished run, committed."""
    root = tmp_path_factory.mktemp("template")
    dvc = [sys.executable, "-m", "dvc"]
    git(root, "init", "-q", "-b", "main")
    subprocess.run([*dvc, "init", "-q"], cwd=root, check=True)
    subprocess.run([*dvc, "config", "core.analytics", "false"], cwd=root, check=True)
    shutil.copytree(ROOT / ".github/scripts", root / ".github/scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "models").mkdir()
    (root / "models/data.bin").write_bytes(b"weights")
    (root / "stage.py").write_text(textwrap.dedent(STAGE))
    (root / "dvc.yaml").write_text(pipeline())
    (root / "params.yaml").write_text('{"quantize": {"weight_type": "QInt8"}}\n')
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": PATH}
    subprocess.run([*dvc, "repro", "-q"], cwd=root, check=True, env=environment)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "base")
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy of it, to change and to push to a bare repository with `publish`."""
    root = tmp_path / "project"
    shutil.copytree(template, root, symlinks=True)
    return root


def track_by_dvc(project: Path, remote: Path | None) -> None:
    """Track the data with DVC, and push them to the remote if one is given."""
    git(project, "rm", "-q", "--cached", "models/data.bin")
    commands = [["add", "-q", "models/data.bin"]]
    if remote:
        commands += [["remote", "add", "-q", "-d", "store", str(remote)], ["push", "-q"]]
    for command in commands:
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=project, check=True)


def publish(project: Path, tmp_path: Path) -> Runner:
    """Commit all changes, push them to a bare repository, and clone that on a runner."""
    git(project, "add", "-A")
    git(project, "commit", "-qm", "head", "--allow-empty")
    origin = tmp_path / "origin.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(origin))
    git(project, "push", "-q", str(origin), "main")
    return Runner(tmp_path, origin)


ALL_GREEN = {"Data": 0, "Committed metrics": 0, "Pipeline": 0, "Base, on the same machine": 0, "Report": 0}


@pytest.mark.slow
def test_a_good_commit_is_green_its_data_are_pulled_and_its_base_is_measured_on_the_same_machine(
    project: Path, tmp_path: Path
) -> None:
    track_by_dvc(project, tmp_path / "store")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "data that a remote holds")
    runner = publish(project, tmp_path)
    assert runner.steps() == ALL_GREEN
    assert (runner.clone / "models/data.bin").read_bytes() == b"weights"
    assert runner.report.startswith("## ✅ Deploy INT8")
    assert "another machine" not in runner.report
    assert row(runner.report, "INT8, median call")[1:3] == ["0.5 ms", "0.5 ms"]
    assert "against base-measured-here" in runner.report
    summary = runner.summary.read_text()
    assert summary.startswith("## ✅ Deploy INT8")
    assert "<picture>" not in summary
    assert sorted(path.name for path in (runner.clone / "ci-report/pictures").iterdir()) == [
        f"{name}-{theme}.png" for name in ("speedup", "tradeoff") for theme in ("dark", "light")
    ]
    assert (runner.clone / "ci-report/report.html").exists()


@pytest.mark.slow
def test_a_closed_gate_is_red_and_reported(project: Path, tmp_path: Path) -> None:
    (project / "params.yaml").write_text('{"quantize": {"weight_type": "QUInt8"}}\n')
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": PATH}
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=project, check=False, env=environment)
    runner = publish(project, tmp_path)
    assert runner.steps(base=False) == {"Data": 0, "Committed metrics": 0, "Pipeline": 255, "Report": 0}
    assert runner.report.startswith("## ❌ The gate is closed, deploy fp32\n\nParity missed.")
    assert row(runner.report, "`quantize.weight_type`")[1:] == ["`QInt8`", "`QUInt8`"]


@pytest.mark.slow
def test_a_stale_knob_is_red_and_reported_beside_a_base_that_cannot_be_measured(project: Path, tmp_path: Path) -> None:
    (project / "stage.py").write_text("import nothing_like_that\n")
    git(project, "commit", "-qam", "broken base")
    git(project, "checkout", "-q", "HEAD~1", "--", "stage.py")
    (project / "params.yaml").write_text('{"quantize": {"weight_type": "QInt8", "per_channel": false}}\n')
    runner = publish(project, tmp_path)
    assert runner.steps() == ALL_GREEN | {"Committed metrics": 1}
    assert runner.report.startswith(
        "## ❌ This commit is not complete\n\n- The committed metrics are not those of this"
    )
    assert (
        "quantize.per_channel was changed from null to false: export, quantize, parity, bench must run. Run"
        in runner.report
    )
    assert "> ⚠️ The base could not be measured here; its committed metrics are shown." in runner.report
    assert "The base was timed on another machine." in runner.report
    assert "## ✅ Deploy INT8" in runner.report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("remote", "reason"),
    [
        ("", "no DVC remote is configured. Add one (dvc remote add), and dvc push."),
        ("store", "dvc pull does not bring it. Run dvc push where it is, and let this workflow read the remote."),
    ],
)
def test_missing_data_are_red_and_reported(project: Path, tmp_path: Path, remote: str, reason: str) -> None:
    track_by_dvc(project, tmp_path / remote if remote else None)
    runner = publish(project, tmp_path)
    if remote:
        shutil.rmtree(tmp_path / remote)
    codes = runner.steps(base=False)
    assert codes["Data"] == 1
    assert codes["Pipeline"] == 255
    assert codes["Report"] == 0
    assert f"- Missing models/data.bin: git has only models/data.bin.dvc, and {reason}\n" in runner.report
    assert "## ❌ The pipeline failed" in runner.report
    assert "✅" not in runner.report


@pytest.mark.slow
def test_a_broken_pipeline_is_red_and_reported(project: Path, tmp_path: Path) -> None:
    (project / "dvc.yaml").write_text("stages:\n  gate:\n    cmd: exit 1\n    cmd: exit 0\n")
    runner = publish(project, tmp_path)
    codes = runner.steps(base=False)
    assert codes["Committed metrics"] == 1
    assert codes["Pipeline"] != 0
    assert codes["Report"] == 0
    assert "- `dvc status` fails, so the metrics cannot be compared with dvc.lock: " in runner.report
    assert "## ❌ The pipeline failed" in runner.report
    assert "dvc.yaml" in runner.report
    assert "✅" not in runner.report


def test_the_environment_step_puts_the_pinned_environment_first_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(".venv/.run:\n\tmkdir -p .venv/bin && touch $@\n")
    environment = {"PATH": os.environ["PATH"], "GITHUB_PATH": str(tmp_path / "path")}
    script = ROOT / ".github/scripts/environment.sh"
    subprocess.run([str(script)], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "path").read_text() == f"{tmp_path}/.venv/bin\n"
    assert (tmp_path / ".venv/.run").exists()


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.stem}.{name}", job)
        for path in WORKFLOWS
        for name, job in yaml.safe_load(path.read_text())["jobs"].items()
    ]


def test_every_step_is_a_script_and_no_expression_stands_in_a_command() -> None:
    commands = [step["run"] for _, job in jobs() for step in job["steps"] if "run" in step]
    assert len(commands) == 8
    for command in commands:
        script = ROOT / command.split()[-1]
        assert script.is_file(), command
        assert command == script.relative_to(ROOT).as_posix() or command.startswith("python .github/scripts/")
        assert "${{" not in script.read_text()


@pytest.mark.parametrize(("name", "job"), jobs(), ids=[name for name, _ in jobs()])
def test_what_runs_untrusted_code_cannot_write(name: str, job: dict[str, Any]) -> None:
    workflow = yaml.safe_load((ROOT / f".github/workflows/{name.split('.', maxsplit=1)[0]}.yml").read_text())
    assert job["timeout-minutes"] <= 90
    assert "concurrency" in workflow
    for step in job["steps"]:
        if "uses" in step:
            assert len(step["uses"].split("@")[1]) == 40
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    if name != "comment.comment":
        assert workflow["permissions"] == {"contents": "read"}
        assert "permissions" not in job
        assert "secrets" not in str(job)
        assert "token" not in str(job)


@pytest.mark.skipif(shutil.which("zizmor") is None, reason="zizmor is not installed (pip install zizmor)")
def test_zizmor_finds_nothing_above_low() -> None:
    done = subprocess.run(
        ["zizmor", "--offline", "--min-severity", "medium", *map(str, WORKFLOWS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
