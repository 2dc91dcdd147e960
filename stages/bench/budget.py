"""What fits into `bench.max_seconds`, once the speed-up has shown how long a launch takes."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from stages.bench.footprint import FEWEST
from stages.common.timing.launch import fewest_calls
from stages.common.timing.summary import FEWEST_LAUNCHES, PairedTiming

PARTS = ("memory", "operators", "call", "control")
"""The parts that share one `bench.max_seconds`, in order; `call`, the empty call, is always timed."""

EMPTY_SECONDS = 1.0
"""About how long a launch takes for a model that computes nothing."""


@dataclass(frozen=True)
class Sizes:
    """The batch sizes that fit, why others do not, and the seconds that all of them would take at worst."""

    fitting: list[int]
    left_out: dict[int, str]
    needed: float


def fitting_sizes(wanted: Sequence[int], serving: PairedTiming, spent: float, seconds: float) -> Sizes:
    """The batch sizes that fit into another `bench.max_seconds`.

    At worst, time is proportional to the batch, and every launch makes the fewest calls it may.

    Args:
        wanted: the batch sizes, in the order of measuring.
        serving: the timing at the serving batch.
        spent: seconds that it took, in all.
        seconds: `bench.max_seconds`.
    """
    fitting: list[int] = []
    left_out: dict[int, str] = {}
    planned = needed = FEWEST_LAUNCHES * spent / serving.launches
    for size in wanted:
        calls = FEWEST_LAUNCHES * _fewest_seconds(serving, size)
        needed += calls
        if planned + calls > seconds:
            left_out[size] = f"with it the launches could take {planned + calls:.0f} s, more than bench.max_seconds"
            continue
        planned += calls
        fitting.append(size)
    return Sizes(fitting, left_out, needed)


@dataclass
class Rest:
    """Memory, operators and the control, which share one `bench.max_seconds`; a part that does not fit is left out.

    Attributes:
        serving: the timing at the serving batch.
        spent: seconds that it took, in all.
        seconds: `bench.max_seconds`.
        sizes: the other batch sizes.
        left_out: the parts that did not fit, and the seconds that would have been enough for each.
    """

    serving: PairedTiming
    spent: float
    seconds: float
    sizes: Sizes
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

    def least(self, *parts: str) -> float:
        """The fewest seconds that these parts of `PARTS` take together."""
        both = self.spent / self.serving.launches  # starts a process, loads both models, and calls each at least twice
        fp32, int8 = self.serving.fp32.p50_ms, self.serving.int8.p50_ms
        seconds = {
            "memory": FEWEST * both,
            "operators": both,
            "call": min(both, EMPTY_SECONDS),
            "control": FEWEST_LAUNCHES * both * 2 * fp32 / (fp32 + int8),
        }
        return sum(seconds[part] for part in parts)

    def shortage(self) -> str:
        """A sentence if the budget was too short for the fewest launches, a batch size or a part, else empty."""
        exceeded = self.serving.launches == FEWEST_LAUNCHES and self.spent > self.seconds
        missing = [*(f"batch {size}" for size in self.sizes.left_out), *self.left_out]
        if not exceeded and not missing:
            return ""
        without = f"there was no time for {', '.join(missing)}" if missing else ""
        sizes = self.sizes.needed if self.sizes.left_out else 0.0
        enough = _up(max(self.spent if exceeded else 0.0, sizes, self.least(*PARTS), *self.left_out.values()))
        if not exceeded and not sizes and self.least(*PARTS) <= self.seconds:
            part, seconds = next(iter(self.left_out.items()))
            return (
                f"With bench.max_seconds {self.seconds:g} {without}: what came before took "
                f"{seconds - self.least(part):.0f} s, more than the launches of the speed-up led to expect. "
                f"Run bench again on a quieter machine, or set it to {enough}."
            )
        fewest = f"the {FEWEST_LAUNCHES} launches that the speed-up takes at least took {self.spent:.0f} s"
        found = " and ".join(filter(None, (fewest if exceeded else "", without)))
        return (
            f"bench.max_seconds {self.seconds:g} is too short for this model: {found}, as {self._slow()}. "
            f"Set it to {enough}."
        )

    def _slow(self) -> str:
        """What takes most of a launch: its calls, or what comes before them."""
        launch, samples = self.spent / self.serving.launches, self.serving.samples
        size = max(self.sizes.left_out, default=samples)
        calls = _fewest_seconds(self.serving, size)
        if calls > launch / 2:
            longer = max(self.serving.fp32.p50_ms, self.serving.int8.p50_ms) * size / samples
            duration = f"{longer:.3g} ms" if longer < 1000 else f"{longer / 1e3:.3g} s"
            return f"a call at batch {size} {'takes' if size == samples else 'could take'} {duration}"
        return (
            f"a launch, which starts a process and loads both models, takes {launch:.2g} s, of which the calls need "
            f"{calls:.2g} s"
        )


def _fewest_seconds(serving: PairedTiming, size: int) -> float:
    """The seconds of the fewest calls that a launch makes of both models at a batch size."""
    calls_ns = [model.p50_ms * 1e6 * size / serving.samples for model in (serving.fp32, serving.int8)]
    return sum(fewest_calls(ns) * ns for ns in calls_ns) / 1e9


def _up(seconds: float) -> int:
    """Seconds rounded up to tens or hundreds, with a tenth to spare."""
    unit = 10 if seconds < 1000 else 100
    return math.ceil(seconds * 1.1 / unit) * unit
