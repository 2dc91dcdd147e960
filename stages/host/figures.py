"""`metrics/host.json`."""

from typing import Any

from stages.common.base import files, paths
from stages.host.stage import Machine


def write(machine: Machine) -> None:
    """Put the fingerprint in place."""
    files.write_json(paths.HOST, headlines(machine))


def headlines(machine: Machine) -> dict[str, Any]:
    """The tree of `metrics/host.json`."""
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
