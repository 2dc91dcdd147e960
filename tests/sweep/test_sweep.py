"""A sweep on a Ray cluster of two local nodes; the grid, the names, and what stops it before it starts."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.common.base.errors import ParamsError
from stages.sweep import grid, worker
from tests.report.test_workflows import PATH, git
from tests.report.trees import ROOT

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"
)

STAGE = """
import json, os, sys, time, yaml
from pathlib import Path
settings = yaml.safe_load(Path("params.yaml").read_text())
with open(os.environ["SWEEP_LOG"], "a") as log:
    print(json.dumps([os.getpid(), os.getppid(), settings["size"]]), file=log)
time.sleep(settings["seconds"])
if settings["size"] < 0:
    sys.exit("Error: size is negative.")
Path("model.bin").write_bytes(b"x" * settings["size"])
Path("result.json").write_text(json.dumps({"size": settings["size"]}))
"""

CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"bench": 1}})
cluster.add_node(num_cpus=1, resources={"bench": 1})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def test_a_grid_is_expanded_as_dvc_does() -> None:
    assert grid.expand(["a.b=1,2", "c=[x],null"]) == [
        ("a.b=1", "c=[x]"),
        ("a.b=1", "c=null"),
        ("a.b=2", "c=[x]"),
        ("a.b=2", "c=null"),
    ]
    assert grid.expand(["a=range(1,3)"]) == [("a=1",), ("a=2",)]


def test_a_setting_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ParamsError, match="Write key=value, or key=a,b for several"):
        grid.expand(["a=[1,"])


def test_names_depend_on_commit_and_settings_alone() -> None:
    assert grid.name("c", ("a=1", "b=2")) == grid.name("c", ("b=2", "a=1"))
    assert len({grid.name("c", ("a=1",)), grid.name("c", ("a=2",)), grid.name("d", ("a=1",))}) == 3


def test_a_command_that_fails_leaves_its_last_lines(tmp_path: Path) -> None:
    script = "import sys; print('\\n'.join(map(str, range(9)))); sys.exit(3)"
    with pytest.raises(worker.CommandError) as caught:
        worker.command((sys.executable, "-c", script), tmp_path)
    assert str(caught.value).splitlines() == ["4", "5", "6", "7", "8"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project whose commit is on a bare repository, and its DVC remote is a folder."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "t")
    git(root, "config", "user.email", "t@example.org")
    dvc(root, "init", "-q")
    dvc(root, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    (root / "stage.py").write_text(textwrap.dedent(STAGE))
    (root / "params.yaml").write_text("seconds: 0\nsize: 1\n")
    (root / "dvc.yaml").write_text(
        "stages:\n  all:\n    cmd: python stage.py\n    deps: [stage.py]\n    params: [seconds, size]\n"
        "    outs: [model.bin]\n    metrics: [{result.json: {cache: false}}]\n"
    )
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(tmp_path / "origin.git"))
    git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    git(root, "push", "-q", "origin", "main")
    git(root, "fetch", "-q", "origin")
    return root


def dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    # A short path: Ray puts sockets into it, whose names may not exceed 107 bytes.
    nodes = tempfile.mkdtemp(prefix="n", dir="/tmp")
    (tmp_path / "nodes").symlink_to(nodes)
    environment = {**os.environ, "SWEEP_LOG": str(tmp_path / "log"), "TMPDIR": nodes, "PATH": PATH}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout is not None
        assert cluster.stdin is not None
        yield cluster.stdout.readline().strip()
        cluster.stdin.close()
        cluster.wait(60)
    shutil.rmtree(nodes)


def sweep(project: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "stages.sweep", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def runs(tmp_path: Path) -> list[list[int]]:
    log = tmp_path / "log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for_runs(tmp_path: Path, count: int) -> list[list[int]]:
    for _ in range(600):
        if len(runs(tmp_path)) >= count:
            return runs(tmp_path)
        time.sleep(0.2)
    raise AssertionError(f"only {runs(tmp_path)} after two minutes")


@with_ray
@pytest.mark.slow
def test_six_experiments_one_worker_killed_one_failed_and_a_second_call_runs_nothing_again(
    project: Path, tmp_path: Path, address: str
) -> None:
    arguments = ("--address", address, "--same-host", "-S", "seconds=2", "-S", "size=10,20,30,40,50,-1")
    process = sweep(project, *arguments)
    # The parents of the stage are a shell, dvc and the worker of Ray: kill that worker half-way.
    stage_pid = wait_for_runs(tmp_path, 1)[0][0]
    killed = worker_of(stage_pid)
    os.kill(killed, signal.SIGKILL)
    printed, progress = process.communicate(timeout=400)
    assert process.returncode == 1, progress
    assert "5 pushed, 0 there already, 1 failed." in printed
    assert "Error: size is negative." in printed
    assert "2 of the nodes are alike: " in progress
    assert len(runs(tmp_path)) == 7

    again = sweep(project, *arguments)
    printed, _ = again.communicate(timeout=400)
    assert "0 pushed, 5 there already, 1 failed." in printed
    assert len(runs(tmp_path)) == 8

    clone = tmp_path / "fresh"
    git(tmp_path, "clone", "-q", str(tmp_path / "origin.git"), str(clone))
    dvc(clone, "exp", "pull", "origin")
    names = [line.split()[-1] for line in git(clone, "for-each-ref", "refs/exps").splitlines() if "sweep-" in line]
    assert len(names) == 5
    sizes = [json.loads(git(clone, "show", f"{name}:result.json"))["size"] for name in names]
    assert sorted(sizes) == [10, 20, 30, 40, 50]


def worker_of(pid: int) -> int:
    """The process of Ray that started this one."""
    while pid > 1:
        if b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat[stat.rindex(")") + 2 :].split()[1])
    raise AssertionError("no worker of Ray above it")


@with_ray
@pytest.mark.alone
@pytest.mark.slow
def test_an_interrupt_leaves_nothing_running(project: Path, tmp_path: Path, address: str) -> None:
    process = sweep(project, "--address", address, "-S", "seconds=300", "-S", "size=10,20,30")
    started = wait_for_runs(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("Interrupted")
    for _ in range(100):
        alive = [pid for pid, *_ in started if Path(f"/proc/{pid}").exists()]
        clones = list((tmp_path / "nodes").glob("sweep-*"))
        if not alive and not clones:
            break
        time.sleep(0.2)
    assert not alive
    assert len(runs(tmp_path)) == 2
    assert clones == []
    assert git(tmp_path / "origin.git", "for-each-ref", "refs/exps") == ""


def change_nothing(_project: Path) -> None:
    pass


def uncommitted(project: Path) -> None:
    (project / "stage.py").write_text("pass\n")


def unpushed(project: Path) -> None:
    git(project, "commit", "-q", "--allow-empty", "-m", "more")


def without_store(project: Path) -> None:
    dvc(project, "remote", "remove", "store")
    git(project, "commit", "-qam", "no store")
    git(project, "push", "-q", "origin", "main")
    git(project, "fetch", "-q", "origin")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (uncommitted, (), "There are uncommitted changes, which the nodes would not see."),
        (unpushed, (), "is not on origin, from which the nodes clone. Run git push."),
        (without_store, (), "There is no default DVC remote to push models to."),
        (change_nothing, ("--remote", "nowhere"), "There is no git remote nowhere"),
        pytest.param(
            change_nothing, ("--address", "127.0.0.1:1"), "There is no Ray cluster at 127.0.0.1:1.", marks=with_ray
        ),
    ],
)
def test_what_stops_a_sweep_before_it_starts(
    project: Path, change: Callable[[Path], None], arguments: tuple[str, ...], message: str
) -> None:
    change(project)
    process = sweep(project, *arguments, "-S", "size=1,2")
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert message in errors
    assert errors.count("\n") == 1
    assert printed == ""


def test_without_ray_it_says_how(project: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "ray.py").write_text("raise ImportError('hidden')\n")
    process = subprocess.run(
        [sys.executable, "-m", "stages.sweep", "-S", "size=1,2"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{hidden}:{ROOT}", "PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.startswith("Error: Ray is not installed. Install it here and on every node: pip install")
    assert "dvc queue start -j 2" in process.stderr
