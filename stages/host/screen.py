"""The host's screen: the machine as a table, then what it means for INT8."""

from tabulate import tabulate

from stages.common import isa
from stages.host.stage import Machine


def render(machine: Machine) -> str:
    """A table and one sentence."""
    hardware = machine.hardware
    quota = "" if hardware.quota is None else f", by a quota of {hardware.quota:g}"
    rows = [
        ("machine_id", hardware.identifier()),
        ("CPU", hardware.model),
        ("caches", hardware.caches or "unknown"),
        ("cores", f"{hardware.cores:g}{quota}"),
        ("RAM", "unknown" if machine.ram_gb is None else f"{machine.ram_gb:g} GB"),
        ("system", machine.os),
        ("Python", f"{machine.python}, numpy {machine.numpy}"),
        ("ONNX Runtime", f"{hardware.onnxruntime} ({machine.build})"),
    ]
    return f"{tabulate(rows, tablefmt='plain')}\n\n{_meaning(hardware.isa)}"


def _meaning(name: str) -> str:
    if name == "unknown":
        return "The instruction set is unknown, so nothing can be said about INT8 before it is measured."
    if name in isa.SATURATING:
        return f"INT8 runs on {name} here, where 16-bit sums may saturate: see docs/quantize.md on reduce_range."
    return f"INT8 runs on {name} here, with 32-bit sums."
