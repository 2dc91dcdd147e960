"""A sweep on a Ray cluster of two local nodes; the grid, the names, and what stops it before it starts."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.common.base.errors import ParamsError, StageError
from stages.sweep import stage, worker
from tests.report.test_workflows import PATH, git
from tests.report.trees import ROOT

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"
)

# A stage that logs its start and waits for the test to let it go on, so no test depends on the speed of the machine.
STAGE = """
import json, os, sys, time, yaml
from pathlib import Path
size = yaml.safe_load(Path("params.yaml").read_text())["size"]
with open(os.environ["SWEEP_LOG"], "a") as log:
    print(json.dumps([os.getpid(), size]), file=log)
while not Path(os.environ["SWEEP_LOG"] + ".go").exists():
    time.sleep(0.05)
if size < 0:
    sys.exit("Error: size is negative.")
Path("model.bin").write_bytes(b"x" * size)
Path("result.json").write_text(json.dumps({"size": size}))
"""

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "resources": {"bench": 1}, "object_store_memory": 80_000_000, "include_log_monitor": False}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False, "no_monitor": True})
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def test_a_grid_is_expanded_as_dvc_does() -> None:
    assert stage.expand(["a.b=1,2", "c=[x],null"]) == [
        ("a.b=1", "c=[x]"),
        ("a.b=1", "c=null"),
        ("a.b=2", "c=[x]"),
        ("a.b=2", "c=null"),
    ]
    assert stage.expand(["a=range(1,3)"]) == [("a=1",), ("a=2",)]


def test_a_setting_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ParamsError, match="Write key=value, or key=a,b for several"):
        stage.expand(["a=[1,"])


def test_names_depend_on_commit_and_settings_alone() -> None:
    assert stage.experiment_name("c", ("a=1", "b=2")) == stage.experiment_name("c", ("b=2", "a=1"))
    others = [("c", ("a=1",)), ("c", ("a=2",)), ("d", ("a=1",))]
    assert len({stage.experiment_name(*other) for other in others}) == 3


def test_a_command_that_fails_leaves_its_last_lines(tmp_path: Path) -> None:
    script = "import sys; print('\\n'.join(map(str, range(9)))); sys.exit(3)"
    with pytest.raises(worker.CommandError) as caught:
        worker.command((sys.executable, "-c", script), tmp_path)
    assert str(caught.value).splitlines() == ["4", "5", "6", "7", "8"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project with one commit."""
    root = tmp_path_factory.mktemp("template")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "t")
    git(root, "config", "user.email", "t@example.org")
    dvc(root, "init", "-q")
    (root / ".dvc/config").write_text(
        "[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = ../../store\n"
    )
    (root / "stage.py").write_text(STAGE)
    (root / "params.yaml").write_text("size: 1\n")
    (root / "dvc.yaml").write_text(
        "stages:\n  all:\n    cmd: python stage.py\n    deps: [stage.py]\n    params: [size]\n"
        "    outs: [model.bin]\n    metrics: [{result.json: {cache: false}}]\n"
    )
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy of `template`, pushed to a bare repository, with a folder as DVC remote."""
    root = tmp_path / "project"
    shutil.copytree(template, root, symlinks=True)
    config = root / ".dvc/config"
    config.write_text(config.read_text().replace("../../store", str(tmp_path / "store")))
    git(root, "commit", "-qam", "store")
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(tmp_path / "origin.git"))
    git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    git(root, "push", "-q", "origin", "main")
    git(root, "fetch", "-q", "origin")
    return root


def dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Nodes:
    """Two nodes on this machine: the address of their cluster, and the folder of their temporary files."""

    address: str
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def runs(self) -> list[list[int]]:
        """What each run of the stage logged: its process id and its size."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def wait_for(self, count: int, sweep: "subprocess.Popen[str]") -> list[list[int]]:
        """Wait until `count` runs have started, and return all runs; fail if the sweep ends before."""
        while len(self.runs()) < count:
            assert sweep.poll() is None, sweep.communicate()
            time.sleep(0.1)
        return self.runs()

    def go_on(self) -> None:
        """Let the waiting stages end."""
        self.log.with_name("log.go").touch()

    def clones(self) -> list[Path]:
        return list(self.folder.glob("sweep-*"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    # A short path: Ray puts sockets into it, whose names may not exceed 107 bytes.
    folder = tempfile.mkdtemp(prefix="n", dir="/tmp")
    environment = {**os.environ, "SWEEP_LOG": f"{folder}/log", "TMPDIR": folder, "PATH": PATH}
    with subprocess.Popen(
        # Nodes that ignore interrupts, as background processes of a script do.
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", CLUSTER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield Nodes(process.stdout.readline().strip(), Path(folder))
        process.stdin.close()
        process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """The cluster, without traces of an earlier test."""
    for path in (cluster.log, cluster.log.with_name("log.go")):
        path.unlink(missing_ok=True)
    for clone in cluster.clones():  # what a killed worker left
        shutil.rmtree(clone, ignore_errors=True)
    return cluster


def sweep(project: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "stages.sweep", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@with_ray
@pytest.mark.slow
def test_a_worker_is_killed_an_experiment_fails_and_a_second_call_runs_nothing_again(
    project: Path, tmp_path: Path, nodes: Nodes
) -> None:
    arguments = ("--address", nodes.address, "--same-host", "-S", "size=10,-1")
    process = sweep(project, *arguments)
    os.kill(worker_of(nodes.wait_for(1, process)[0][0]), signal.SIGKILL)
    nodes.go_on()
    printed, progress = process.communicate()
    assert process.returncode == 1, progress
    assert "1 pushed, 0 already there, 1 failed." in printed
    assert "Error: size is negative." in printed
    assert "Using 2 nodes of the same kind: " in progress
    sizes = [size for _, size in nodes.runs()]
    assert sorted(sizes[1:]) == [-1, 10]
    assert sizes[0] in sizes[1:]

    again = sweep(project, *arguments)
    printed, _ = again.communicate()
    assert "0 pushed, 1 already there, 1 failed." in printed
    assert [size for _, size in nodes.runs()[3:]] == [-1]

    clone = tmp_path / "fresh"
    git(tmp_path, "clone", "-q", str(tmp_path / "origin.git"), str(clone))
    dvc(clone, "exp", "pull", "origin")
    names = [line.split()[-1] for line in git(clone, "for-each-ref", "refs/exps").splitlines() if "sweep-" in line]
    results = [json.loads(git(clone, "show", f"{name}:result.json"))["size"] for name in names]
    assert results == [10]


def worker_of(pid: int) -> int:
    """The id of Ray's worker process, an ancestor of process `pid`; between them are DVC and a shell."""
    while pid > 1:
        if b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
        pid = int(status(pid)[1])
    raise AssertionError("no worker of Ray above it")


def status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the state X if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ["X"]
    return text[text.rindex(")") + 2 :].split()


@with_ray
@pytest.mark.slow
def test_an_interrupt_leaves_nothing_running(project: Path, tmp_path: Path, nodes: Nodes) -> None:
    process = sweep(project, "--address", nodes.address, "-S", "size=10,20")
    started = nodes.wait_for(2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("Interrupted")
    # The sweep waited for its tasks, and the tasks for the processes that they had started: all are gone by now.
    assert [status(pid)[0] for pid, _ in started if status(pid)[0] not in "XZ"] == []
    assert nodes.clones() == []
    assert nodes.runs() == started
    assert git(tmp_path / "origin.git", "for-each-ref", "refs/exps") == ""


def change_nothing(_project: Path) -> None:
    pass


def uncommitted(project: Path) -> None:
    (project / "stage.py").write_text("pass\n")


def unpushed(project: Path) -> None:
    git(project, "commit", "-q", "--allow-empty", "-m", "more")


def without_store(project: Path) -> None:
    (project / ".dvc/config").write_text("[core]\n    analytics = false\n")
    git(project, "commit", "-qam", "no store")
    git(project, "push", "-q", "origin", "main")
    git(project, "fetch", "-q", "origin")


@pytest.mark.parametrize(
    ("change", "remote", "address", "message"),
    [
        (uncommitted, "origin", None, "There are uncommitted changes, which nodes would not get."),
        (unpushed, "origin", None, "is not on origin, from which nodes clone. Run git push."),
        (without_store, "origin", None, "No default DVC remote is configured to push models to."),
        (change_nothing, "nowhere", None, "The git remote nowhere, from which nodes would clone, does not exist"),
        pytest.param(change_nothing, "origin", "127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1.", marks=with_ray),
    ],
)
def test_what_stops_a_sweep_before_it_starts(
    project: Path, change: Callable[[Path], None], remote: str, address: str | None, message: str
) -> None:
    change(project)
    with contextlib.chdir(project), pytest.raises(StageError, match=message):
        stage.run(["size=1,2"], remote=remote, address=address, same_host=False)


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
