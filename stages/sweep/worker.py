"""What runs on a node. Ray sends this module by value, so it imports only the standard library."""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LINES_KEPT = 5


@dataclass(frozen=True)
class Experiment:
    """One task.

    Attributes:
        name: of the DVC experiment.
        overrides: as in `dvc exp run -S`.
        git_remote: the address to clone from and to push to.
        commit: where the experiment starts.
    """

    name: str
    overrides: Sequence[str]
    git_remote: str
    commit: str


@dataclass(frozen=True)
class TaskResult:
    """The outcome of an experiment on a node; `failure` has the last lines of a command that failed, else nothing."""

    name: str
    failure: Sequence[str]
    node: str


class CommandError(Exception):
    """A command failed; the argument is the end of its output."""


def run(experiment: Experiment) -> TaskResult:
    """Clone, pull, run, push. A failed command is an outcome; after the loss of a node, Ray runs the task again."""
    # Ray cancels a task with SIGINT, which a node started in the background would ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if not pushed(experiment.git_remote, experiment.commit, experiment.name):
            with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
                _run(experiment, Path(folder))
    except CommandError as error:
        return TaskResult(experiment.name, str(error).splitlines(), platform.node())
    return TaskResult(experiment.name, (), platform.node())


def pushed(git_remote: str, commit: str, name: str) -> bool:
    """Whether the git remote has an experiment of this name: an earlier task may have pushed it."""
    reference = f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"
    return bool(command(("git", "ls-remote", git_remote, reference), Path.cwd()))


def kind() -> str:
    """The kind of machine of this node: latencies of nodes of the same kind can be compared."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{platform.machine()}, {model}, {os.cpu_count()} cores"


def command(arguments: Sequence[str], folder: Path) -> str:
    """The output of a command, which is killed with all its children if the task is cancelled.

    Raises:
        CommandError: it failed.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = _output(process)
    except BaseException:
        _kill(process)
        raise
    if process.returncode != 0:
        lines = [line for line in output.splitlines() if line.strip()]
        raise CommandError("\n".join(lines[-LINES_KEPT:] or [f"{arguments[0]} exited with {process.returncode}"]))
    return output


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill a command with all its children, and wait until none is left that could write into the clone."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.1)


def _output(process: "subprocess.Popen[str]") -> str:
    """What a process prints. Ray's cancel does not interrupt a blocking wait, so a wait lasts half a second at most."""
    while True:
        try:
            return process.communicate(timeout=0.5)[0]
        except subprocess.TimeoutExpired:
            continue


def _run(experiment: Experiment, folder: Path) -> None:
    command(("git", "clone", "-q", experiment.git_remote, "."), folder)
    command(("git", "checkout", "-q", experiment.commit), folder)
    command(("git", "config", "user.name", "sweep"), folder)
    command(("git", "config", "user.email", "sweep@localhost"), folder)
    command(("dvc", "pull", "-q", "--allow-missing"), folder)
    overrides = [part for override in experiment.overrides for part in ("-S", override)]
    command(("dvc", "exp", "run", "-n", experiment.name, *overrides), folder)
    command(("dvc", "exp", "push", "origin", experiment.name), folder)
