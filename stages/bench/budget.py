"""What fits into `bench.max_seconds`, once the speed-up has shown how long a launch takes."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from stages.bench.footprint import FEWEST
from stages.common.timing.launch import fewest_calls
from stages.common.timing.summary import FEWEST_LAUNCHES, PairedTiming


def fitting_sizes(
    wanted: Iterable[int], serving: PairedTiming, spent: float, seconds: float
) -> tuple[list[int], dict[int, str]]:
    """The batch sizes that fit into another `bench.max_seconds`, and why others do not.

    At worst, time is proportional to the batch, and every launch makes the fewest calls it may.

    Args:
        wanted: the batch sizes, in the order of measuring.
        serving: the timing at the serving batch.
        spent: seconds that it took, in all.
        seconds: `bench.max_seconds`.
    """
    fitting: list[int] = []
    left_out: dict[int, str] = {}
    planned = FEWEST_LAUNCHES * spent / serving.launches
    for size in wanted:
        calls_ns = [model.p50_ms * 1e6 * size / serving.samples for model in (serving.fp32, serving.int8)]
        needed = planned + FEWEST_LAUNCHES * sum(fewest_calls(ns) * ns for ns in calls_ns) / 1e9
        if needed > seconds:
            left_out[size] = f"it could take {needed:.0f} s; set bench.max_seconds to {_up(needed)}"
            continue
        planned = needed
        fitting.append(size)
    return fitting, left_out


@dataclass
class Rest:
    """Memory, operators and the control, which share one `bench.max_seconds`; a part that does not fit is left out.

    Attributes:
        serving: the timing at the serving batch.
        spent: seconds that it took, in all.
        seconds: `bench.max_seconds`.
        left_out: the parts that did not fit, and the seconds that would have been enough for each.
    """

    serving: PairedTiming
    spent: float
    seconds: float
    left_out: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = time.monotonic()

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self._began)

    def fits(self, part: str) -> bool:
        """Whether there is time for a part; if not, it is left out. See `least`."""
        least = self.least(part)
        if least > self.left:
            self.left_out[part] = self.seconds - self.left + least
        return part not in self.left_out

    def least(self, part: str) -> float:
        """The seconds that `memory`, `operators` or `control` take at least."""
        both = self.spent / self.serving.launches  # starts a process, loads both models, and calls each at least twice
        match part:
            case "memory":
                return FEWEST * both
            case "operators":
                return both
            case _:
                fp32, int8 = self.serving.fp32.p50_ms, self.serving.int8.p50_ms
                return FEWEST_LAUNCHES * both * 2 * fp32 / (fp32 + int8)

    def shortage(self) -> str:
        """A sentence if the budget was too short for the fewest launches or for a part, else empty."""
        exceeded = self.serving.launches == FEWEST_LAUNCHES and self.spent > self.seconds
        if not exceeded and not self.left_out:
            return ""
        fewest = f"the {FEWEST_LAUNCHES} launches that the speed-up takes at least took {self.spent:.0f} s"
        missing = f"there was no time for {', '.join(self.left_out)}" if self.left_out else ""
        together = sum(map(self.least, ("memory", "operators", "control")))
        enough = max(self.spent if exceeded else 0.0, together, *self.left_out.values())
        found = " and ".join(filter(None, (fewest if exceeded else "", missing)))
        return f"bench.max_seconds {self.seconds:g} is too short for this model: {found}. Set it to {_up(enough)}."


def _up(seconds: float) -> int:
    """Seconds rounded up to tens or hundreds, with a tenth to spare."""
    unit = 10 if seconds < 1000 else 100
    return math.ceil(seconds * 1.1 / unit) * unit
