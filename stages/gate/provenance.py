"""Do these metrics belong together, and to the files as they stand? Metrics that do not are not judged."""

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


def refuse_foreign_metrics(evidence: Evidence, serving: Serving) -> list[str]:
    """Check that all metrics come from one run over the files as they stand.

    What the metrics record of each other is compared first: machine, models, threads. Then DVC compares params, models,
    data, code and metrics with `dvc.lock`.

    Returns:
        Sentences on what could not be checked.

    Raises:
        StageError: something does not belong, with the stage to run again.
    """
    _same_machine(evidence)
    _same_arithmetic(evidence)
    _same_models(evidence)
    _same_threads(evidence, serving)
    if pipeline.lock().exists():
        for stage, change in changes_since_lock():
            pull = ", or `dvc pull` if a remote holds it" if change.endswith("is missing") else ""
            raise StageError(
                f"The metrics do not belong to the files as they stand: {change}. {stage} must run: `dvc repro`{pull}."
            )
        frozen = ", ".join(stage.name for stage in pipeline.here().values() if stage.frozen)
        unchecked = f"dvc.yaml freezes {frozen}: whether these params, data and code were run was not checked there."
        return [unchecked] if frozen else []
    if pipeline.here():
        raise StageError(
            "dvc.lock is missing, so nothing shows that the metrics belong to the files as they stand. Restore it from "
            "git, or run `dvc repro` and commit it."
        )
    _models_as_they_stand(evidence)
    return ["dvc.lock does not exist, so only models, machine and threads were checked, not params, data and code."]


def changes_since_lock() -> list[tuple[str, str]]:
    """What changed since `dvc.lock` was written, as `stale` yields it.

    Raises:
        StageError: `dvc status` fails.
    """
    names = _names()
    locked = yaml12.load(pipeline.lock().read_text(encoding="utf-8")).get("stages") or {}
    lock = {"stages": {room: locked[name] for room, (name, _) in names.items() if name in locked}}
    status = _dvc_status([address for _, address in names.values()])
    return list(stale({room: status.get(address, ()) for room, (_, address) in names.items()}, lock, _params()))


def _names() -> dict[str, tuple[str, str]]:
    """What a stage is called in dvc.lock and by DVC's commands, by the room that it runs."""
    here = pipeline.here()
    return {room: (here[room].name, here[room].address) if room in here else (room, room) for room in STAGES}


def stale(status: Tree, lock: Tree, params: Tree) -> Iterator[tuple[str, str]]:
    """What changed since `dvc.lock` was written, in the order of the pipeline.

    Args:
        status: what `dvc status --json` prints, by room.
        lock: the content of `dvc.lock`, its stages by room.
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
    for path, what in changes.items():
        if path == PARAMS.name and isinstance(what, dict):
            for key in what:
                old = locked.get("params", {}).get(path, {}).get(key)
                yield from _changed_keys(old, _at(params, key.split(".")), key)
        elif isinstance(what, dict):
            yield from (f"{key} in {path} {_word(word)}" for key, word in what.items())
        elif what not in ("not in cache", "not in remote"):
            yield f"{path} {_word(what)}"
        elif not Path(path).exists():  # DVC looks into its cache first, and says no more
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


def _word(word: Any) -> str:
    return {"new": "was added", "deleted": "is missing"}.get(str(word), f"was {word}")


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
            f"metrics/bench.json was measured on the machine {measured}, and metrics/host.json describes {here}. "
            "Run bench again."
        )


def _same_arithmetic(evidence: Evidence) -> None:
    """INT8 gives different answers on another instruction set, and may with another version of ONNX Runtime."""
    judged = [evidence.parity_details.get("judged", key) for key in ("isa", "onnxruntime")]
    here = [evidence.host.get("cpu", "isa"), evidence.host.get("onnxruntime")]
    if judged != here:
        raise StageError(
            f"Parity was judged on {judged[0]} with ONNX Runtime {judged[1]}, and metrics/host.json describes {here[0]}"
            f" with {here[1]}, where INT8 may answer differently. Run parity again."
        )


def _same_models(evidence: Evidence) -> None:
    for model, path in _MODELS.items():
        judged = evidence.parity_details.get("judged", "sha256", model)
        if judged != evidence.bench_details.get("measured", "sha256", model):
            raise StageError(
                f"parity and bench saw different files as {path.as_posix()}. Run both again: `dvc repro`, or "
                "`python -m stages.parity` and `python -m stages.bench`."
            )


def _same_threads(evidence: Evidence, serving: Serving) -> None:
    for stage, threads in (
        ("parity", evidence.parity_details.get("judged", "threads")),
        ("bench", evidence.bench_details.get("measured", "threads")),
    ):
        if threads != serving.threads:
            raise StageError(
                f"metrics/{stage}.json was measured with serving.threads {threads}, and params.yaml has "
                f"{serving.threads}. Run {stage} again."
            )


def _models_as_they_stand(evidence: Evidence) -> None:
    for model, path in _MODELS.items():
        if path.exists() and files.sha256(path) != evidence.parity_details.get("judged", "sha256", model):
            raise StageError(f"{path.as_posix()} was changed since parity and bench ran. Run both again.")
