"""One side of a comparison: metrics, evidence and params of the workspace or of a git revision."""

import csv
import io
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.base import files, paths, pipeline, yaml12
from stages.common.base.errors import StageError
from stages.common.base.params import Gate
from stages.common.rule import Rule

Tree = Mapping[str, Any]
Rows = Sequence[Mapping[str, str]]

_MEASURED = (paths.EXPORT, paths.QUANTIZE, paths.PARITY, paths.BENCH, paths.GATE)
HEADLINES = {path.stem: path for path in (paths.HOST, *_MEASURED)}
DETAILS = {path.stem: paths.DETAILS / path.name for path in _MEASURED}
"""The headlines file of each stage."""

REQUIRED = ("host", "quantize", "parity", "bench", "gate")
"""The stages whose metrics a report needs."""

SPEEDUP = ("speedup", "speedup_low95", "speedup_high95")
FRONTIER = ("candidate", "origin", "nodes_quantized", *SPEEDUP, "mb", "strain", "passes", "chosen")


@dataclass(frozen=True)
class Revision:
    """What one side measured, and under which params.

    Attributes:
        name: what the report calls it.
        metrics: the headlines by stage; empty for a stage whose file is missing.
        details: the evidence by stage, likewise.
        nodes: the rows of `nodes.csv` in `metrics/details`.
        worst: the rows of `parity_worst.csv` there.
        errors: the rows of `parity_errors.csv`.
        latency: the rows of `bench_latency.csv`.
        frontier: the rows of `frontier.csv`: the models that method auto built.
        params: `params.yaml`, its keys joined with dots.
        stale: keys of `params.yaml` whose values differ from those that a stage ran with: `dvc.lock` has them, and the
            rules of the gate have its limits.
    """

    name: str
    metrics: Mapping[str, Tree]
    details: Mapping[str, Tree]
    nodes: Rows
    worst: Rows
    errors: Rows
    latency: Rows
    frontier: Rows
    params: Tree
    stale: Sequence[str]

    def value(self, stage: str, key: str) -> Any:
        """A headline by dotted key, or None."""
        return lookup(self.metrics[stage], key)

    def detail(self, stage: str, key: str) -> Any:
        """A figure of the details by dotted key, or None."""
        return lookup(self.details[stage], key)

    def rules(self, stage: str) -> list[Rule]:
        """The rules that gate or parity evaluated; empty if the stage wrote none.

        Raises:
            StageError: another version of this project wrote them.
        """
        try:
            return [Rule.from_json(tree) for tree in self.detail(stage, "rules") or []]
        except (KeyError, TypeError, ValueError) as error:
            raise StageError(
                f"The rules in {DETAILS[stage].as_posix()} are of another version. Run {stage} again."
            ) from error

    @property
    def machine_id(self) -> str | None:
        """The machine that timed the models."""
        identity = self.detail("bench", "measured.machine_id") or self.value("host", "machine_id")
        return None if identity is None else str(identity)

    def model_hash(self, model: str) -> str | None:
        """SHA-256 of the `fp32` or `int8` model that was timed; None if bench did not record it."""
        digest = self.detail("bench", f"measured.sha256.{model}")
        return None if digest is None else str(digest)


def lookup(tree: Any, key: str) -> Any:
    """The value under a dotted key, or None."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def workspace() -> Revision:
    """The files of the workspace.

    Raises:
        StageError: metrics that a report needs are missing or broken.
    """
    for stage in REQUIRED:
        files.read_json(HEADLINES[stage], stage)
    for stage, path in {**HEADLINES, **DETAILS}.items():
        if path.exists():
            files.read_json(path, stage)
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", paths.PARAMS.as_posix(), paths.METRICS.as_posix())
    name = "workspace" if commit is None else commit.strip() + (" with uncommitted changes" if changed else "")
    return _revision(name, lambda path: path.read_text(encoding="utf-8") if path.exists() else "")


def at(name: str) -> Revision:
    """The files of a commit, branch or tag; a missing file counts as empty.

    Raises:
        StageError: this is not a git repository with a commit, or it has no such revision.
    """
    commit = _git("rev-parse", "--short", "--verify", f"{name}^{{commit}}")
    if commit is None:
        _require_commit()
        raise StageError(
            f"--base {name} is not a revision of this git repository. Fetch it (CI needs the full history), or give "
            "another."
        )
    short = commit.strip()
    known_as = short if name == short else f"{name} ({short})"
    return _revision(known_as, lambda path: _git("show", f"{short}:./{path.as_posix()}") or "")


def _revision(name: str, read: Callable[[Path], str]) -> Revision:
    params = _yaml(read(paths.PARAMS), f"params.yaml of {name}")
    locked = _yaml(read(pipeline.lock()), f"dvc.lock of {name}").get("stages") or {}
    names = {room: stage.name for room, stage in pipeline.here().items()} or {room: room for room in HEADLINES}
    ran_with = {room: lookup(locked.get(stage), "params") or {} for room, stage in names.items()}
    details = {stage: _json(read(path)) for stage, path in DETAILS.items()}
    return Revision(
        name,
        {stage: _json(read(path)) for stage, path in HEADLINES.items()},
        details,
        _csv(read(paths.NODES), ("node", "op_type", "quantized", "how", "reason")),
        _csv(read(paths.PARITY_WORST), ("sample", "output", "fp32", "int8", "abs_error")),
        _csv(read(paths.PARITY_ERRORS), ("output", "low", "high", "share")),
        _csv(read(paths.BENCH_LATENCY), ("quantile", "fp32_ms", "int8_ms")),
        _csv(read(paths.FRONTIER), FRONTIER),
        flat(params),
        sorted({*_stale(params, ran_with), *_stale_limits(params, details["gate"])}),
    )


def _stale(params: Tree, ran_with: Mapping[str, Mapping[str, Tree]]) -> Iterator[str]:
    # A closed gate fails its stage, so its entry in the lock may be from an earlier run, in which the gate was open.
    locked = [files_.get(paths.PARAMS.name) or {} for stage, files_ in ran_with.items() if stage != "gate"]
    for entry in locked:
        for key, value in entry.items():
            yield from _differing(value, lookup(params, key), key)


def _differing(old: Any, new: Any, key: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            yield from _differing(old.get(name), new.get(name), f"{key}.{name}")
    elif old != new:
        yield key


def _stale_limits(params: Tree, gate: Tree) -> Iterator[str]:
    """The keys of `gate` whose values are not the limits of the rules that it evaluated."""
    section = params.get("gate")
    limits = section if isinstance(section, Mapping) else {}
    judged = {lookup(rule, "name"): lookup(rule, "limit") for rule in gate.get("rules") or []}
    for name in Gate.model_fields.keys() & judged:
        limit = limits.get(name, Gate.model_fields[name].default)
        if name == "require_quantized":
            limit = "quantized" if limit else None
        if files.rounded_tree(limit) != judged[name]:
            yield f"gate.{name}"


def flat(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Nested keys joined with dots."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _json(text: str) -> Tree:
    try:
        tree = json.loads(text or "{}")
    except ValueError:
        return {}  # a base that was committed broken cannot be compared
    return tree if isinstance(tree, dict) else {}


def _csv(text: str, columns: Sequence[str]) -> Rows:
    """The rows; none if a column is missing, as in a file of an older version."""
    rows = list(csv.DictReader(io.StringIO(text)))
    return rows if rows and set(columns) <= set(rows[0]) else []


def _yaml(text: str, name: str) -> Tree:
    try:
        tree = yaml12.load(text)
    except yaml12.YamlError as error:
        raise StageError(f"{name} is not valid YAML: {error}. Fix it.") from error
    return tree if isinstance(tree, dict) else {}


def _require_commit() -> None:
    """Raise a StageError with what git says if HEAD cannot be read."""
    try:
        said = subprocess.run(
            ["git", "rev-parse", "-q", "--verify", "HEAD^{commit}"], capture_output=True, text=True, check=False
        )
    except OSError:
        raise StageError("git is not installed, and it holds what --base and --experiments show. Install it.") from None
    if said.returncode != 0:
        reason = said.stderr.partition("\n")[0].removeprefix("fatal: ").rstrip(".") or "it has no commit"
        raise StageError(f"git cannot read HEAD here: {reason}. --base and --experiments show what is committed.")


def _git(*arguments: str) -> str | None:
    """The output of git; None if it fails or is not installed."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
