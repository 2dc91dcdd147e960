"""The stage: everything about the machine that affects latency, and one identifier for it."""

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass

import numpy as np
import onnxruntime as ort

from stages.common import isa
from stages.host import cpu


@dataclass(frozen=True)
class Hardware:
    """What the speed of an operator depends on. Nothing that changes between boots: no clock, hostname or kernel."""

    model: str
    isa: str
    flags: tuple[str, ...]
    caches: str
    cores: float
    quota: float | None
    onnxruntime: str

    def identifier(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of all fields."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Machine:
    """The hardware, and what else a reader of measurements needs to know."""

    hardware: Hardware
    ram_gb: float | None
    os: str
    python: str
    numpy: str
    build: str


def run() -> Machine:
    """Describe the machine that this process runs on."""
    hardware = Hardware(
        model=cpu.name(),
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
    """Physical memory in whole GB (1e9 bytes): the last percent differs between boots."""
    try:
        return float(round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9))
    except (ValueError, OSError, AttributeError):
        return None


def _system() -> str:
    """Name and version of the operating system, without the kernel version."""
    if platform.system() == "Linux":
        try:
            return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
        except OSError:
            return "Linux"
    return f"{platform.system()} {platform.release()}"
