"""What else the machine did while models were timed: it explains a wide interval, and corrects nothing."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

_QUIET = 0.9
_STARVED = 0.95
_BUSY = 0.1
_CROWDED = 0.1
_STOLEN = 0.01


@dataclass(frozen=True)
class Snapshot:
    """Counters of the system at one moment; None where it keeps none.

    Attributes:
        clock: seconds.
        own: seconds of CPU time of this process and of the children that it has waited for.
        busy: seconds of CPU time of all processes.
        stolen: seconds of CPU time that the hypervisor gave to others.
        waited: seconds in which some task had to wait for a CPU (pressure stall information).
        throttled: seconds in which the CPU quota of the container stopped it.
        load: runnable tasks, averaged over a minute.
    """

    clock: float
    own: float
    busy: float | None
    stolen: float | None
    waited: float | None
    throttled: float | None
    load: float


@dataclass(frozen=True)
class Noise:
    """What disturbed the timed rounds; None where the system does not tell.

    Attributes:
        quiet_share: of the timed rounds, this share was quiet.
        cpu_share: CPU time over wall time of the timed rounds.
        others_share: of the machine's CPU time, other processes took this.
        stolen_share: of the machine's CPU time, the hypervisor gave this to other machines.
        waiting_share: of the time, some task had to wait for a CPU.
        throttled_s: seconds in which the CPU quota stopped the container.
        load: runnable tasks when it began, averaged over a minute.
    """

    quiet_share: float
    cpu_share: float | None
    others_share: float | None
    stolen_share: float | None
    waiting_share: float | None
    throttled_s: float | None
    load: float

    def __str__(self) -> str:
        """What was found, in words; nothing where all was quiet."""
        findings = []
        if self.quiet_share < _QUIET:
            findings.append(f"{1 - self.quiet_share:.0%} of the timed rounds were disturbed")
        if self.cpu_share is not None and self.cpu_share < _STARVED:
            findings.append(f"the timed calls had a CPU for {self.cpu_share:.0%} of their time")
        if (self.others_share or 0) > _BUSY:
            findings.append(f"other processes took {self.others_share:.0%} of the machine's CPU time")
        if (self.stolen_share or 0) > _STOLEN:
            findings.append(f"the hypervisor took {self.stolen_share:.0%} of the machine's CPU time")
        if (self.waiting_share or 0) > _CROWDED:
            findings.append(f"tasks waited for a CPU {self.waiting_share:.0%} of the time")
        if self.throttled_s:
            findings.append(f"the CPU quota stopped it for {self.throttled_s:.2g} s")
        return ", ".join(findings)


def snapshot() -> Snapshot:
    """Read the counters now."""
    # user, nice, system, idle, iowait, irq, softirq, steal; user and nice count guests already.
    found = re.search(r"^cpu +(.+)$", _text(Path("/proc/stat")), re.MULTILINE)
    ticks = [int(each) / os.sysconf("SC_CLK_TCK") for each in found[1].split()] if found else None
    pressure = _number(r"some .*total=(\d+)", Path("/proc/pressure/cpu"))
    return Snapshot(
        clock=time.monotonic(),
        own=sum(os.times()[:4]),
        busy=sum(ticks[:3] + ticks[5:7]) if ticks else None,
        stolen=ticks[7] if ticks else None,
        waited=None if pressure is None else pressure / 1e6,
        throttled=_throttled(),
        load=os.getloadavg()[0],
    )


def between(before: Snapshot, after: Snapshot, quiet_share: float, cpu_share: float | None) -> Noise:
    """What happened from one snapshot to the other."""
    seconds = max(after.clock - before.clock, 1e-9)
    capacity = seconds * (os.cpu_count() or 1)

    def spent(start: float | None, end: float | None) -> float | None:
        return None if start is None or end is None else max(0.0, end - start)

    busy, stolen = spent(before.busy, after.busy), spent(before.stolen, after.stolen)
    waited = spent(before.waited, after.waited)
    return Noise(
        quiet_share=quiet_share,
        cpu_share=cpu_share,
        others_share=None if busy is None else max(0.0, busy - (after.own - before.own)) / capacity,
        stolen_share=None if stolen is None else stolen / capacity,
        waiting_share=None if waited is None else waited / seconds,
        throttled_s=spent(before.throttled, after.throttled),
        load=before.load,
    )


def _throttled() -> float | None:
    """Seconds for which the container was stopped, by version 2 or version 1 of control groups."""
    root = Path("/sys/fs/cgroup")
    own = re.search(r"^0::/(.*)$", _text(Path("/proc/self/cgroup")), re.MULTILINE)
    for folder in (root / own[1], root) if own else (root,):
        found = _number(r"throttled_usec (\d+)", folder / "cpu.stat")
        if found is not None:
            return found / 1e6
    found = _number(r"throttled_time (\d+)", root / "cpu" / "cpu.stat")
    return None if found is None else found / 1e9


def _number(pattern: str, path: Path) -> int | None:
    found = re.search(pattern, _text(path))
    return int(found[1]) if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
