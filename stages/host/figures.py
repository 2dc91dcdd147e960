"""`metrics/host.json`, and `metrics/details/search_target.json`, which `quantize.method: auto` depends on."""

from pathlib import Path
from typing import Any

from stages.common.base import files, paths
from stages.common.base.params import Params
from stages.host.stage import Machine


def write(machine: Machine, params: Params) -> None:
    """Write both files together."""
    with files.together() as outputs:
        outputs.json(paths.SEARCH_TARGET, search_target(machine, params))
        outputs.json(paths.HOST, headlines(machine))


def search_target(machine: Machine, params: Params) -> dict[str, Any]:
    """The content of `metrics/details/search_target.json`; empty unless `quantize.method` is auto or plan.

    Auto searches within parity's tolerances, at the serving batch size, by the speed of this machine. If these were
    params of quantize in `dvc.yaml`, a change would re-run it for every method, so quantize depends on this file
    instead. It also holds the hash of the plan, because `dvc.yaml` cannot depend on a file that params name.
    """
    plan = Path(params.quantize.plan or "")
    if params.quantize.method == "plan":
        return {"plan_sha256": files.sha256(plan) if plan.is_file() else None}
    if params.quantize.method != "auto":
        return {}
    return {
        "machine_id": machine.hardware.identifier(),
        "parity": params.parity.model_dump(mode="json"),
        "serving": params.serving.model_dump(mode="json"),
    }


def headlines(machine: Machine) -> dict[str, Any]:
    """The content of `metrics/host.json`."""
    hardware = machine.hardware
    return {
        "machine_id": hardware.identifier(),
        "cpu": {
            "model": hardware.model,
            "isa": hardware.isa,
            "caches": hardware.caches,
            "cores": hardware.cores,
        },
        "ram_gb": machine.ram_gb,
        "os": machine.os,
        "python": machine.python,
        "numpy": machine.numpy,
        "onnxruntime": hardware.onnxruntime,
        "onnxruntime_build": machine.build,
    }
