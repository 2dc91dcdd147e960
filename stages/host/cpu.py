"""The CPU as the system reports it: model, caches, and how many cores this process may use."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def name() -> str:
    """The vendor's name of the CPU, with family, model and stepping where the system reports them."""
    if CPUINFO.exists():
        return describe(CPUINFO.read_text(encoding="utf-8"))
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def describe(cpuinfo: str) -> str:
    """One line on the first processor in `/proc/cpuinfo`, of any architecture."""
    first = dict(re.findall(r"^([^\n:]+?)\s*:[ \t]*(.*)$", cpuinfo.split("\n\n", maxsplit=1)[0], re.MULTILINE))
    name = first.get("model name") or first.get("Hardware") or platform.machine()
    numbers = [
        f"{label} {first[key]}"
        for key, label in (
            ("cpu family", "family"),
            ("model", "model"),
            ("stepping", "stepping"),
            ("CPU implementer", "implementer"),
            ("CPU part", "part"),
        )
        if first.get(key)
    ]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def caches(folder: Path = CACHES) -> str:
    """The caches of one core, e.g. `L1d 32K, L1i 32K, L2 1024K, L3 32768K`; empty if the system reports none.

    Virtual machines and many ARM boards list caches without a size; their names stand alone.
    """
    names = []
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if not level:
            continue
        suffix = {"Data": "d", "Instruction": "i"}.get(kind, "")
        names.append(f"L{level}{suffix} {size}".rstrip())
    return ", ".join(names)


def _read(file: Path) -> str:
    """The text of a system file, stripped; empty if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def quota(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> float | None:
    """The CPU quota of this process's control groups, in cores; None without a limit.

    Args:
        root: where control groups are mounted.
        membership: the file that names the group of this process.
    """
    limits = [limit for folder in _groups(root, membership) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _groups(root: Path, membership: Path) -> Iterator[Path]:
    """The control group of this process and its parents, in versions 1 and 2."""
    lines = _read(membership).splitlines()
    for line in ["0::/", *lines]:
        _, controllers, name = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            mount = root if controllers == "" else root / "cpu"
            group = mount / name.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _limit(folder: Path) -> float | None:
    if (folder / "cpu.max").exists():
        allowed, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return None if allowed == "max" else int(allowed) / int(period)
    if (folder / "cpu.cfs_quota_us").exists():
        micros, period_us = (
            int((folder / name).read_text(encoding="utf-8")) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
        return None if micros < 0 else micros / period_us
    return None


def cores() -> float:
    """Cores that this process may use: its CPU affinity, limited by the quota of its control groups."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    limit = quota()
    return affinity if limit is None else min(affinity, limit)
