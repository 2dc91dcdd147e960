"""What else the machine did while the models were timed: it explains a wide interval, but corrects nothing."""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_QUIET = 0.9
_STARVED = 0.95
_BUSY = 0.1
_CROWDED = 0.1
_STOLEN = 0.01

Counters = Mapping[str, float | None]
"""By name; None for a counter that the system does not keep."""


@dataclass(frozen=True)
class Noise:
    """What disturbed the timed rounds; None for a figure that the system does not report.

    Attributes:
        quiet_share: share of quiet rounds.
        cpu_share: CPU time over wall time of the timed rounds.
        others_share: share of the machine's CPU time that other processes took.
        stolen_share: share of the machine's CPU time that the hypervisor gave to other machines.
        waiting_share: share of the time during which some task waited for a CPU.
        throttled_s: seconds during which the CPU quota stopped the container.
        load: runnable tasks at the start, averaged over a minute.
    """

    quiet_share: float
    cpu_share: float | None
    others_share: float
    stolen_share: float | None
    waiting_share: float | None
    throttled_s: float | None
    load: float

    def finding(self) -> str:
        """What disturbed the rounds, as a clause without a full stop; empty if nothing disturbed them."""
        findings = []
        if self.quiet_share < _QUIET:
            findings.append(f"{1 - self.quiet_share:.0%} of the rounds were disturbed")
        if self.cpu_share is not None and self.cpu_share < _STARVED:
            findings.append(f"the calls had a CPU for {self.cpu_share:.0%} of the time")
        if self.others_share > _BUSY:
            findings.append(f"other processes took {self.others_share:.0%} of the machine's CPU time")
        if (self.stolen_share or 0) > _STOLEN:
            findings.append(f"the hypervisor took {self.stolen_share:.0%} of the machine's CPU time")
        if (self.waiting_share or 0) > _CROWDED:
            findings.append(f"tasks waited for a CPU {self.waiting_share:.0%} of the time")
        if self.throttled_s:
            findings.append(f"the CPU quota stopped bench for {self.throttled_s:.2g} s")
        return ", ".join(findings)


def snapshot() -> Counters:
    """The counters now, all but `load` in seconds.

    Returns:
        `clock`, the wall clock; CPU time of this process and its ended children (`own`), of all processes (`busy`), and
        of other machines (`stolen`); how long some task `waited` for a CPU (pressure stall information); how long the
        quota `throttled` the container; and `load`, the number of runnable tasks.
    """
    cpu = psutil.cpu_times()
    pressure = _number(r"some .*total=(\d+)", Path("/proc/pressure/cpu"))
    return {
        "clock": time.monotonic(),
        "own": sum(os.times()[:4]),
        "busy": cpu.user + cpu.nice + cpu.system + getattr(cpu, "irq", 0) + getattr(cpu, "softirq", 0),
        "stolen": getattr(cpu, "steal", None),
        "waited": None if pressure is None else pressure / 1e6,
        "throttled": _throttled(),
        "load": os.getloadavg()[0],
    }


def between(before: Counters, after: Counters, quiet_share: float, cpu_share: float | None) -> Noise:
    """What happened between two snapshots."""

    def spent(key: str, per: float = 1.0) -> float | None:
        start, end = before[key], after[key]
        return None if start is None or end is None else max(0.0, end - start) / per

    seconds = max(spent("clock") or 0.0, 1e-9)
    capacity = seconds * (os.cpu_count() or 1)
    return Noise(
        quiet_share=quiet_share,
        cpu_share=cpu_share,
        others_share=max(0.0, (spent("busy") or 0.0) - (spent("own") or 0.0)) / capacity,
        stolen_share=spent("stolen", capacity),
        waiting_share=spent("waited", seconds),
        throttled_s=spent("throttled"),
        load=before["load"] or 0.0,
    )


def _throttled() -> float | None:
    """Seconds during which the quota stopped the container, from version 2 or 1 of control groups."""
    root = Path("/sys/fs/cgroup")
    own = re.search(r"^0::/(.*)$", _text(Path("/proc/self/cgroup")), re.MULTILINE)
    for folder in (root / own[1], root) if own else (root,):
        microseconds = _number(r"throttled_usec (\d+)", folder / "cpu.stat")
        if microseconds is not None:
            return microseconds / 1e6
    nanoseconds = _number(r"throttled_time (\d+)", root / "cpu" / "cpu.stat")
    return None if nanoseconds is None else nanoseconds / 1e9


def _number(pattern: str, path: Path) -> int | None:
    match = re.search(pattern, _text(path))
    return int(match[1]) if match else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
