"""The CPU as the system describes it: model, caches, and how many cores this process may use."""

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
    """One line from the first processor of `/proc/cpuinfo`, whichever architecture wrote it."""
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
    """The caches of one core, e.g. `L1d 32K, L1i 32K, L2 1024K, L3 32768K`; empty where the system reports none.

    A virtual machine, and many an ARM board, lists a cache without its size: its name then stands alone.
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
    """The text of a file of the system, stripped; empty where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def quota(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> float | None:
    """Cores' worth of time that the control groups of this process allow, or None without a limit.

    Args:
        root: where control groups are mounted.
        membership: the file that names this process's group, below `root`.
    """
    limits = [limit for folder in _groups(root, membership) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _groups(root: Path, membership: Path) -> Iterator[Path]:
    """The group of this process and those that enclose it, in version 2 and in version 1 of control groups."""
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
    """Cores that this process may use: its affinity, cut by the quota of its control group."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    limit = quota()
    return affinity if limit is None else min(affinity, limit)
