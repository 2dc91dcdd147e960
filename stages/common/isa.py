"""The instruction set that INT8 runs on, from the flags of the CPU."""

import platform
import re
from functools import cache
from pathlib import Path

# From best to worst: ONNX Runtime's INT8 kernels use the first whose flags are all present.
# Flags are named as in Linux's /proc/cpuinfo on x86-64 and AArch64.
_LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("amx", frozenset({"amx_tile", "amx_int8"})),
    ("avx512_vnni", frozenset({"avx512_vnni"})),
    ("avx_vnni", frozenset({"avx_vnni"})),
    ("avx512", frozenset({"avx512f", "avx512bw"})),
    ("avx2", frozenset({"avx2"})),
    ("sse", frozenset({"sse2"})),
    ("i8mm", frozenset({"i8mm"})),
    ("dotprod", frozenset({"asimddp"})),
    ("neon", frozenset({"asimd"})),
)

KNOWN = frozenset().union(*(needed for _, needed in _LEVELS)) | {"fma", "avx512vl", "avx512_bf16", "sve", "bf16"}
"""Flags that select a kernel in ONNX Runtime; other flags do not affect its speed."""

SATURATING = frozenset({"sse", "avx2", "avx512"})
"""Where products of unsigned and signed bytes are added in 16 bits and may saturate: x86 without VNNI or AMX."""


def best(flags: frozenset[str]) -> str | None:
    """The best instruction set for INT8 with these CPU flags, or None."""
    return next((name for name, needed in _LEVELS if needed <= flags), None)


@cache
def cpu_flags() -> frozenset[str]:
    """The flags of this CPU; empty if the system does not report them."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        line = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
        return frozenset(line[1].split()) if line else frozenset()
    if platform.machine() == "arm64":  # every Apple CPU that ONNX Runtime supports
        return frozenset({"asimd", "asimddp"})
    return frozenset()


def here() -> str:
    """The instruction set of this machine, one of `_LEVELS` or `unknown`."""
    return best(cpu_flags()) or "unknown"
