"""What host prints: the machine as a table, then what it means for INT8."""

from tabulate import tabulate

from stages.common import isa
from stages.host.stage import Machine


def render(machine: Machine) -> str:
    """A table and one sentence."""
    hardware = machine.hardware
    cores = f"{hardware.cores:g} core{'' if hardware.cores == 1 else 's'}"
    quota = "" if hardware.quota is None else f" (a quota of {hardware.quota:g})"
    memory = "" if machine.ram_gb is None else f", {machine.ram_gb:g} GB"
    rows = [
        ("machine", f"{hardware.identifier()}: {hardware.model}, {cores}{quota}{memory}"),
        ("software", f"{machine.os}, Python {machine.python}, ONNX Runtime {hardware.onnxruntime}"),
    ]
    return f"{tabulate(rows, tablefmt='plain')}\n{_meaning(hardware.isa)}"


def _meaning(name: str) -> str:
    if name == "unknown":
        return "The instruction set is unknown, so how INT8 performs here must be measured."
    if name in isa.SATURATING:
        return f"INT8 runs on {name} here: its 16-bit sums can saturate if quantize.portable is false."
    return f"INT8 runs on {name} here, with 32-bit sums."
