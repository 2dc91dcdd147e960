"""Refuse metrics that do not belong together, or to the current params, models, data and code."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from stages.common.base import files, paths, pipeline, yaml12
from stages.common.base.errors import StageError
from stages.common.base.params import Serving
from stages.common.base.paths import PARAMS
from stages.gate.inputs import Evidence

Tree = dict[str, Any]

STAGES = ("export", "quantize", "parity", "bench")
_MODELS = {"fp32": paths.FP32_MODEL, "int8": paths.INT8_MODEL}
_NO_LOCK = (
    "dvc.lock is missing, so nothing shows that the metrics belong to the current files. Restore it from git, or run "
    "`dvc repro` and commit it."
)


def refuse_foreign_metrics(evidence: Evidence, serving: Serving) -> list[str]:
    """Check that all metrics come from one run over the current files.

    First the machine, models and threads that the metrics record are compared with each other; then DVC compares
    params, models, data, code and metrics with `dvc.lock`.

    Returns:
        Sentences on what could not be checked.

    Raises:
        StageError: something does not match; the message names the stage to run again.
    """
    _same_machine(evidence)
    _same_arithmetic(evidence)
    _same_models(evidence)
    _same_threads(evidence, serving)
    if pipeline.lock().exists():
        for stage, change in changes_since_lock():
            pull = ", or `dvc pull` if a remote holds it" if change.endswith("is missing") else ""
            raise StageError(
                f"The metrics do not belong to the current files: {change}. {stage} must run: `dvc repro`{pull}."
            )
        frozen = ", ".join(stage.name for stage in pipeline.here().values() if stage.frozen)
        unchecked = f"dvc.yaml freezes {frozen}: DVC does not check whether params, data or code changed there."
        return [unchecked] if frozen else []
    if pipeline.here():
        raise StageError(_NO_LOCK)
    _unchanged_models(evidence)
    return ["dvc.lock does not exist, so only models, machine and threads were checked, not params, data and code."]


def changes_since_lock() -> list[tuple[str, str]]:
    """What changed since `dvc.lock` was written; see `stale`.

    Raises:
        StageError: `dvc.lock` is missing or broken, or `dvc status` fails.
    """
    names = _names()
    locked = _locked(pipeline.lock())
    lock = {"stages": {stage: locked[name] for stage, (name, _) in names.items() if name in locked}}
    status = _dvc_status([address for _, address in names.values()])
    return list(stale({stage: status.get(address, ()) for stage, (_, address) in names.items()}, lock, _params()))


def _locked(file: Path) -> Tree:
    """The stages of `dvc.lock` by name."""
    if not file.exists():
        raise StageError(_NO_LOCK)
    try:
        tree = yaml12.load(file.read_text(encoding="utf-8"))
        problem = "is empty" if not tree else "lists no stages"
    except (yaml12.YamlError, UnicodeDecodeError) as error:
        tree, problem = None, f"is not valid YAML: {error}"
    stages = tree.get("stages") if isinstance(tree, dict) else None
    if not isinstance(stages, dict):
        raise StageError(f"{file.as_posix()} {problem}. Restore it from git, or run `dvc repro` without it.")
    return cast(Tree, stages)


def _names() -> dict[str, tuple[str, str]]:
    """The name of each stage in dvc.lock and its address in DVC commands, by the package that it runs."""
    here = pipeline.here()
    return {stage: (here[stage].name, here[stage].address) if stage in here else (stage, stage) for stage in STAGES}


def stale(status: Tree, lock: Tree, params: Tree) -> Iterator[tuple[str, str]]:
    """What changed since `dvc.lock` was written, in the order of the pipeline.

    Args:
        status: the output of `dvc status --json`, by package.
        lock: the content of `dvc.lock`, its stages by package.
        params: the content of `params.yaml`.

    Yields:
        (stage, clause), e.g. ("parity", "parity.abs_tol was changed from 0.04 to 0.05").
    """
    for stage in STAGES:
        for entry in status.get(stage, ()):
            if entry == "changed command":
                yield stage, "its command in dvc.yaml was changed"
            elif isinstance(entry, dict):
                for changes in entry.values():
                    yield from ((stage, change) for change in _changes(changes, lock["stages"].get(stage, {}), params))


def _changes(changes: Tree, locked: Tree, params: Tree) -> Iterator[str]:
    for path, change in changes.items():
        if path == PARAMS.name and isinstance(change, dict):
            for key in change:
                old = locked.get("params", {}).get(path, {}).get(key)
                yield from _changed_keys(old, _at(params, key.split(".")), key)
        elif isinstance(change, dict):
            yield from (f"{key} in {path} {_clause(status)}" for key, status in change.items())
        elif change not in ("not in cache", "not in remote"):
            yield f"{path} {_clause(change)}"
        elif not Path(path).exists():  # DVC checks its cache first, and reports only that
            yield f"{path} is missing"


def _at(tree: Any, keys: list[str]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _changed_keys(old: Any, new: Any, key: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from _changed_keys(old.get(name), new.get(name), f"{key}.{name}")
    elif old != new:
        yield f"{key} was changed from {_shown(old)} to {_shown(new)}"


def _shown(value: Any) -> str:
    return "null" if value is None else json.dumps(value)


def _params() -> Tree:
    return yaml12.load(PARAMS.read_text(encoding="utf-8")) or {} if PARAMS.exists() else {}


def _clause(status: Any) -> str:
    return {"new": "was added", "deleted": "is missing"}.get(str(status), f"was {status}")


def _dvc_status(addresses: Iterable[str]) -> Tree:
    command = [sys.executable, "-m", "dvc", "status", "--json", *addresses]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).removeprefix("ERROR: ").split("\n")[0].rstrip(".")
        raise StageError(
            f"`dvc status` fails, so the metrics cannot be compared with dvc.lock: {reason}. "
            "Fix that, then run `dvc repro`."
        )
    return cast(Tree, json.loads(done.stdout))


def _same_machine(evidence: Evidence) -> None:
    here, measured = evidence.host.get("machine_id"), evidence.bench_details.get("measured", "machine_id")
    if here != measured:
        raise StageError(
            f"metrics/bench.json was measured on machine {measured}, but metrics/host.json describes {here}. "
            "Run bench again."
        )


def _same_arithmetic(evidence: Evidence) -> None:
    """Refuse a verdict from another instruction set or version of ONNX Runtime, where INT8 answers can differ."""
    judged = [evidence.parity_details.get("judged", key) for key in ("isa", "onnxruntime")]
    here = [evidence.host.get("cpu", "isa"), evidence.host.get("onnxruntime")]
    if judged != here:
        raise StageError(
            f"Parity judged on {judged[0]} with ONNX Runtime {judged[1]}, but metrics/host.json describes {here[0]}"
            f" with {here[1]}, where INT8 answers may differ. Run parity again."
        )


def _same_models(evidence: Evidence) -> None:
    for model, path in _MODELS.items():
        judged = evidence.parity_details.get("judged", "sha256", model)
        if judged != evidence.bench_details.get("measured", "sha256", model):
            raise StageError(
                f"parity and bench used different versions of {path.as_posix()}. Run both again: `dvc repro`, or "
                "`python -m stages.parity` and `python -m stages.bench`."
            )


def _same_threads(evidence: Evidence, serving: Serving) -> None:
    for stage, threads in (
        ("parity", evidence.parity_details.get("judged", "threads")),
        ("bench", evidence.bench_details.get("measured", "threads")),
    ):
        if threads != serving.threads:
            raise StageError(
                f"metrics/{stage}.json was measured with serving.threads {threads}, but params.yaml has "
                f"{serving.threads}. Run {stage} again."
            )


def _unchanged_models(evidence: Evidence) -> None:
    for model, path in _MODELS.items():
        if path.exists() and files.sha256(path) != evidence.parity_details.get("judged", "sha256", model):
            raise StageError(f"{path.as_posix()} has changed since parity and bench ran. Run both again.")
