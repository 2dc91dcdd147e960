"""A clone of this project in a git repository of its own, with a small model and short measurements."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common.base import yaml12

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Project:
    """A repository to run commands in."""

    root: Path
    env: dict[str, str]

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

    def restore(self) -> None:
        """Put everything back to the last commit."""
        self.run("git", "checkout", "-q", ".")
        self.run("dvc", "checkout", "-q", "--force")

    def changed(self) -> str:
        """What git sees as changed."""
        return self.run("git", "status", "--porcelain").stdout


def shorten_launches(root: Path) -> None:
    """Let bench time for a tenth of the seconds: where the pipeline runs as a whole, no test reads a latency."""
    module = root / "stages" / "common" / "timing" / "launches.py"
    text = module.read_text()
    assert "\nSECONDS = 0.4\n" in text
    module.write_text(text.replace("SECONDS = 0.4", "SECONDS = 0.04"))


def clone(target: Path) -> Project:
    """Copy what git would track of this checkout, as it stands, into a new repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    identity = {
        f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(target.parent),
        "DVC_SITE_CACHE_DIR": str(target.parent / "site"),
        "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"],
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        **identity,
    }
    shorten_launches(target)
    project = Project(target, env)
    project.run("git", "init", "-q", "-b", "main")
    project.set(
        export={"source": "tests.sources:small_mlp"},
        parity={"advice_seconds": 5},
        bench={"batch_sizes": [1], "max_seconds": 2, "memory": False},
        gate={"min_speedup": None},
    )
    project.commit("The project")
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A new clone: nothing has run in it."""
    return clone(tmp_path / "project")


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which the pipeline ran once, and its results are committed; shared: a test leaves it as it was."""
    project = clone(tmp_path_factory.mktemp("ran") / "project")
    shown = project.run("dvc", "repro").stdout
    project.commit("Run")
    (project.root.parent / "shown.txt").write_text(shown)
    return project
