"""A clone of this project in a git repository of its own, with a small model and short measurements."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from stages.common.base import yaml12

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Project:
    """A repository to run commands in; `committed` identifies the files of artifacts/ as of the last commit."""

    root: Path
    env: dict[str, str]
    committed: dict[Path, tuple[int, int, int]] = field(default_factory=dict)

    def run(self, *command: str, check: bool = True, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the repository; fail the test with all that it printed if `check` and it fails."""
        done = subprocess.run(command, cwd=self.root, env=self.env | env, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command} gave {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def set(self, **sections: dict[str, Any]) -> None:
        """Change keys of params.yaml."""
        file = self.root / "params.yaml"
        tree = yaml12.load(file.read_text())
        for section, keys in sections.items():
            tree[section].update(keys)
        file.write_text(yaml.safe_dump(tree))

    def metrics(self, stage: str) -> dict[str, Any]:
        """A metrics file."""
        tree: dict[str, Any] = json.loads((self.root / "metrics" / f"{stage}.json").read_text())
        return tree

    def commit(self, message: str) -> None:
        """Commit all changes."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", message)
        self.committed.update(self._artifacts())

    def restore(self) -> None:
        """Put everything back to the last commit; DVC, which takes a second, only runs if artifacts/ was touched."""
        self.run("git", "checkout", "-q", ".")
        if self.committed != self._artifacts():
            self.run("dvc", "checkout", "-q", "--force")
            self.committed.clear()
            self.committed.update(self._artifacts())

    def _artifacts(self) -> dict[Path, tuple[int, int, int]]:
        """Inode, size and time of every file of artifacts/: they change if the file does."""
        files = (file for file in (self.root / "artifacts").rglob("*") if file.is_file())
        return {file: (info.st_ino, info.st_size, info.st_mtime_ns) for file in files for info in [file.stat()]}

    def status(self) -> dict[str, Any]:
        """What `dvc status --json` would print, by DVC's API, which takes no second to start."""
        with pytest.MonkeyPatch.context() as here, Repo(self.root) as repo:
            here.chdir(self.root)
            for name, value in self.env.items():
                here.setenv(name, value)
            stale: dict[str, Any] = repo.status()
        return stale

    def changed(self) -> str:
        """The files that git sees as changed."""
        return self.run("git", "status", "--porcelain").stdout


SHORTER = {
    "launches.py": ("SECONDS = 0.4", "SECONDS = 0.04"),
    "summary.py": ("MIN_LAUNCHES = 8", "MIN_LAUNCHES = 3"),
    "lock.py": ('_FILE = "onnx-quantize-pipeline.bench.lock"', '_FILE = "{root}.lock"'),
}


def shorten_launches(root: Path) -> None:
    """Let bench time a tenth as long, in the fewest launches that give every figure, without waiting for a bench in
    another folder: tests that run the whole pipeline read no latency.
    """
    for name, (old, new) in SHORTER.items():
        module = root / "stages" / "common" / "timing" / name
        text = module.read_text()
        assert f"\n{old}\n" in text
        module.write_text(text.replace(old, new.format(root=root)))


def clone(target: Path) -> Project:
    """Copy the files of this checkout that git would track, as they are now, into a new repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    shorten_launches(target)
    project = Project(target, environment(target.parent))
    project.run("git", "init", "-q", "-b", "main")
    project.set(
        export={"source": "tests.sources:small_mlp"},
        parity={"advice_seconds": None},
        bench={"batch_sizes": [], "max_seconds": 0.1, "memory": False},
        gate={"min_speedup": None},
    )
    project.commit("The project")
    return project


def environment(home: Path) -> dict[str, str]:
    """The environment for the commands of a test, without the settings and caches of the user."""
    identity = {
        f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"],
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        **identity,
    }


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A new clone: nothing has run in it."""
    return clone(tmp_path / "project")


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which the pipeline ran once and its results are committed. Tests share it and leave it as it was."""
    project = clone(tmp_path_factory.mktemp("ran") / "project")
    shown = project.run("dvc", "repro").stdout
    project.commit("Run")
    (project.root.parent / "shown.txt").write_text(shown)
    return project
