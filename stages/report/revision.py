"""One side of a comparison: the metrics and params of the workspace, or of a revision in git."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.base import files, paths, yaml12
from stages.common.base.errors import StageError

STAGES = {
    "host": paths.HOST,
    "export": paths.EXPORT,
    "quantize": paths.QUANTIZE,
    "parity": paths.PARITY,
    "bench": paths.BENCH,
}

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Revision:
    """What one side measured, and under which params.

    Attributes:
        name: how a person calls it.
        metrics: by stage, as the files hold them; a stage without a file is an empty mapping.
        params: keys joined with dots.
    """

    name: str
    metrics: Mapping[str, Tree]
    params: Tree


def workspace() -> Revision:
    """The files as they stand.

    Raises:
        StageError: metrics are missing, so that there is nothing to report.
    """
    metrics = {stage: files.read_json(path, stage) for stage, path in STAGES.items()}
    text = paths.PARAMS.read_text(encoding="utf-8") if paths.PARAMS.exists() else ""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", paths.PARAMS.as_posix(), paths.METRICS.as_posix())
    name = "workspace" if commit is None else commit.strip() + (" and uncommitted changes" if changed else "")
    return Revision(name, metrics, _params(text, "params.yaml"))


def at(name: str) -> Revision:
    """The files as a commit, branch or tag has them; those that it has not are empty.

    Raises:
        StageError: this is no git repository, or it has no such revision.
    """
    commit = _git("rev-parse", "--short", "--verify", f"{name}^{{commit}}")
    if commit is None:
        raise StageError(
            f"--base {name} is no revision of this git repository. Fetch it (CI: the whole history), or name another."
        )
    metrics = {stage: _metrics(_show(commit.strip(), path)) for stage, path in STAGES.items()}
    return Revision(f"{name} ({commit.strip()})", metrics, _params(_show(commit.strip(), paths.PARAMS), name))


def _metrics(text: str) -> Tree:
    try:
        tree = json.loads(text or "{}")
    except ValueError:
        return {}  # a base that was committed broken has nothing to compare with
    return tree if isinstance(tree, dict) else {}


def _params(text: str, name: str) -> Tree:
    try:
        tree = yaml12.load(text)
    except yaml12.YamlError as error:
        raise StageError(f"params.yaml of {name} is not valid YAML: {error}. Fix it.") from error
    return _flat(tree) if isinstance(tree, dict) else {}


def _flat(tree: Tree, prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def _show(commit: str, path: Path) -> str:
    return _git("show", f"{commit}:./{path.as_posix()}") or ""


def _git(*arguments: str) -> str | None:
    """What git prints, or None where it fails or is not there."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
