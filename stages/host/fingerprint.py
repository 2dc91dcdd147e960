"""Everything about a machine that moves a latency, and one identifier for it."""

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from stages.common import isa
from stages.host import cpu


@dataclass(frozen=True)
class Hardware:
    """What the speed of a kernel depends on, and nothing that moves from boot to boot: no clock, hostname or kernel."""

    model: str
    isa: str
    flags: tuple[str, ...]
    caches: str
    cores: float
    quota: float | None
    onnxruntime: str

    def identifier(self) -> str:
        """The first 12 hexadecimal digits of a SHA-256 over all of it."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Machine:
    """The hardware, and what else a reader of a measurement wants to know."""

    hardware: Hardware
    ram_gb: float | None
    os: str
    python: str
    numpy: str
    build: str

    def metrics(self) -> dict[str, Any]:
        """The content of `metrics/host.json`."""
        return {
            "machine_id": self.hardware.identifier(),
            "cpu": {
                "model": self.hardware.model,
                "isa": self.hardware.isa,
                "caches": self.hardware.caches,
                "cores": self.hardware.cores,
            },
            "ram_gb": self.ram_gb,
            "os": self.os,
            "python": self.python,
            "numpy": self.numpy,
            "onnxruntime": self.hardware.onnxruntime,
            "onnxruntime_build": self.build,
        }

    def rows(self) -> list[tuple[str, str]]:
        """The same as a table for a person."""
        limit = "" if self.hardware.quota is None else f" (a quota of {self.hardware.quota:g})"
        return [
            ("machine_id", self.hardware.identifier()),
            ("CPU", self.hardware.model),
            ("caches", self.hardware.caches or "unknown"),
            ("cores", f"{self.hardware.cores:g}{limit}"),
            ("RAM", "unknown" if self.ram_gb is None else f"{self.ram_gb:g} GB"),
            ("system", self.os),
            ("Python", f"{self.python}, numpy {self.numpy}"),
            ("ONNX Runtime", f"{self.hardware.onnxruntime} ({self.build})"),
        ]

    def sentence(self) -> str:
        """What the machine means for INT8."""
        name = self.hardware.isa
        if name == "unknown":
            return "The instruction set is unknown here, so nothing can be said of INT8 before it is measured."
        if name in isa.SATURATING:
            return (
                f"INT8 runs on {name} here, where sums of 16 bits may saturate: see docs/quantize.md on reduce_range."
            )
        return f"INT8 runs on {name} here, with sums of 32 bits."


def fingerprint() -> Machine:
    """Describe the machine that this process runs on."""
    hardware = Hardware(
        model=cpu.model(),
        isa=isa.here(),
        flags=tuple(sorted(isa.cpu_flags() & isa.KNOWN)),
        caches=cpu.caches(),
        cores=cpu.cores(),
        quota=cpu.quota(),
        onnxruntime=ort.__version__,
    )
    return Machine(
        hardware=hardware,
        ram_gb=_ram_gb(),
        os=_system(),
        python=platform.python_version(),
        numpy=np.__version__,
        build=ort.get_build_info().removeprefix("ORT Build Info: "),
    )


def _ram_gb() -> float | None:
    """Physical memory in GB (1e9 bytes), whole: the last percent differs from boot to boot."""
    try:
        return float(round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9))
    except (ValueError, OSError, AttributeError):
        return None


def _system() -> str:
    """Name and version of the system, without the kernel's build."""
    if platform.system() == "Linux":
        try:
            return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
        except OSError:
            return "Linux"
    return f"{platform.system()} {platform.release()}"
