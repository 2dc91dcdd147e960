"""From a grid of settings to experiments on the git remote."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from stages.common.base.errors import ParamsError, StageError
from stages.sweep import cluster, worker
from stages.sweep.worker import Experiment, TaskResult

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class SweepResult:
    """What a sweep did.

    Attributes:
        settings: the overrides of every experiment of the grid, by name.
        already_there: the names of the experiments that the git remote already had.
        outcomes: of the other experiments, in the order in which they ended.
        remote: the name of the git remote.
    """

    settings: dict[str, Overrides]
    already_there: Sequence[str]
    outcomes: Sequence[TaskResult]
    remote: str

    @property
    def failed(self) -> list[TaskResult]:
        return [outcome for outcome in self.outcomes if outcome.failure]


def run(overrides: Sequence[str], *, remote: str, address: str | None, same_host: bool) -> SweepResult:
    """Run the experiments that the git remote does not have yet.

    Args:
        overrides: as in `dvc exp run -S`.
        remote: name of the git remote.
        address: of the Ray cluster; None for the cluster of this machine.
        same_host: whether to run all experiments on nodes of the same kind.

    Raises:
        StageError: the nodes cannot get the commit or the data, or no cluster answers.
    """
    url, commit = _reachable(remote)
    settings = {experiment_name(commit, chosen): chosen for chosen in expand(overrides)}
    already_there = [name for name in settings if worker.pushed(url, commit, name)]
    experiments = [
        Experiment(name, chosen, url, commit) for name, chosen in settings.items() if name not in already_there
    ]
    outcomes: list[TaskResult] = []
    if experiments:
        with cluster.connected(address) as ray:
            nodes = None
            if same_host:
                kind, nodes = cluster.alike(ray)
                _progress(f"Using {len(nodes)} node{'s' * (len(nodes) != 1)} of the same kind: {kind}")
            for outcome in cluster.run(ray, experiments, nodes):
                outcomes.append(outcome)
                state = "failed" if outcome.failure else "pushed"
                _progress(f"{len(outcomes)} of {len(experiments)}: {outcome.name} {state}, {outcome.node}")
    return SweepResult(settings, already_there, outcomes, remote)


def expand(overrides: Sequence[str]) -> list[Overrides]:
    """All combinations, as in `dvc exp run --queue -S`: `a=1,2` gives two, `choice()` and `range()` work.

    Raises:
        ParamsError: an override is not in this syntax.
    """
    from dvc.utils.hydra import get_hydra_sweeps
    from hydra.errors import HydraException

    try:
        sweeps = get_hydra_sweeps({"params.yaml": list(overrides)})
    except (HydraException, ValueError) as error:
        problem = str(error).splitlines()[0].rstrip(".")
        raise ParamsError(
            f"-S {' -S '.join(overrides)}: {problem}. Write key=value, or key=a,b for several."
        ) from error
    return [tuple(sweep["params.yaml"]) for sweep in sweeps]


def experiment_name(commit: str, overrides: Overrides) -> str:
    """A name that depends only on the commit and the overrides, not on their order."""
    text = json.dumps([commit, sorted(overrides)])
    return f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _reachable(remote: str) -> tuple[str, str]:
    """The address of the git remote, and the commit; raises StageError if nodes could not clone it or push models."""
    url = _output("git", "remote", "get-url", remote)
    if not url:
        raise StageError(
            f"The git remote {remote}, from which nodes would clone, does not exist. Add it, or pass --remote."
        )
    if _output("git", "status", "--porcelain", "--untracked-files=no"):
        raise StageError("There are uncommitted changes, which nodes would not get. Commit and push them.")
    commit = _output("git", "rev-parse", "HEAD")
    if not any(
        line.strip().startswith(f"{remote}/")
        for line in _output("git", "branch", "-r", "--contains", commit).splitlines()
    ):
        raise StageError(f"The commit {commit[:7]} is not on {remote}, from which nodes clone. Run git push.")
    if not _output(sys.executable, "-m", "dvc", "config", "core.remote"):
        raise StageError("No default DVC remote is configured to push models to. Add one: dvc remote add -d.")
    return url, commit


def _output(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=False).stdout.strip()


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
