"""Measure both models, while no other bench runs on this machine; the speed-up at the serving batch comes first."""

import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stages.bench import control, inputs, noise, operators
from stages.bench.budget import Rest, fitting_sizes
from stages.bench.footprint import Footprint, measure_footprints
from stages.bench.inputs import Inputs, write_identity
from stages.bench.noise import Noise
from stages.bench.operators import Profile
from stages.common.base import files
from stages.common.base.params import Params
from stages.common.timing.launches import LaunchSettings, ModelPair, median_ms, time_pair
from stages.common.timing.lock import alone
from stages.common.timing.summary import Interval, PairedTiming

SECONDS_BESIDE = 0.2
"""How long a launch times each batch size other than the serving one, and the identity model."""

OVERHEAD_BOUND = 5
"""A model is bound by call overhead if its call takes less than this many times as long as an empty one."""


@dataclass(frozen=True)
class Measurements:
    """Everything measured.

    Attributes:
        serving: the timing at the serving batch.
        beside: the timings at other batch sizes.
        left_out: batch sizes that were not measured, with the reason.
        footprints: of fp32 and INT8; None if `bench.memory` is false, or without time for it.
        floor_ms: the time of a call that computes nothing.
        control: the fp32 model against itself; None without time for it.
        noise: what disturbed the launches at the serving batch.
        profile: the time of both models by operator type; None without time for it.
        rest: what did not fit into `bench.max_seconds`.
    """

    serving: PairedTiming
    beside: tuple[PairedTiming, ...]
    left_out: dict[int, str]
    footprints: tuple[Footprint, Footprint] | None
    floor_ms: float
    control: Interval | None
    noise: Noise
    profile: Profile | None
    rest: Rest

    def by_batch(self) -> list[PairedTiming]:
        """All timings, by batch size."""
        return sorted((self.serving, *self.beside), key=lambda timing: timing.samples)

    @property
    def overhead_bound(self) -> bool:
        """Whether call overhead is more than a fifth of the INT8 model's time."""
        return self.serving.int8.p50_ms < OVERHEAD_BOUND * self.floor_ms

    def overhead(self) -> str:
        """A sentence if the model is bound by call overhead, else empty."""
        if not self.overhead_bound:
            return ""
        return (
            f"A call that computes nothing takes {self.floor_ms * 1e3:.2g} us here, a call of the INT8 model "
            f"{self.serving.int8.p50_ms * 1e3:.2g} us: INT8 can save little, as the call itself takes most of it."
        )


@dataclass(frozen=True)
class BenchResult:
    """The inputs, the number of threads, and the measurements, which are None if both files are identical."""

    inputs: Inputs
    threads: int
    measurements: Measurements | None

    def warnings(self) -> list[str]:
        """Reasons to distrust the figures, in sentences."""
        machine, warnings = self.inputs.machine, []
        if self.threads > machine.cores:
            warnings.append(
                f"serving.threads is {self.threads}, but this machine has {machine.cores:g} "
                f"core{'s' * (machine.cores != 1)}, so the threads wait for each other."
            )
        shortage = self.measurements.rest.shortage() if self.measurements else ""
        return [*warnings, shortage] if shortage else warnings


def run(params: Params) -> BenchResult:
    """Measure both models, unless the files are identical.

    Raises:
        StageError: an input is missing, or a model cannot be measured.
    """
    subject = inputs.read(params)
    if subject.same_model:
        return BenchResult(subject, params.serving.threads, None)
    with (
        alone() as lock,
        files.scratch("bench") as folder,
        tqdm(bar_format="bench, {desc}: {n} launches, {elapsed}{postfix}", disable=None, leave=False) as progress,
    ):
        measurements = _measure(subject, params, lock, folder, progress)
    return BenchResult(subject, params.serving.threads, measurements)


def _measure(subject: Inputs, params: Params, lock: int, folder: Path, progress: tqdm) -> Measurements:
    """Measure everything that fits into the budget, the speed-up at the serving batch first."""
    models, seed = subject.models, params.bench.seed
    settings = LaunchSettings(params.serving.threads, seed, lock)
    identity = write_identity(folder)
    budget, target = params.bench.max_seconds, params.bench.target_halfwidth
    others = sorted(set(params.bench.batch_sizes) - {subject.batch})

    def launched(left: float, *, later: float = budget) -> None:
        progress.set_postfix_str(f"at most {max(0.0, left) + later:.0f} s left", refresh=False)
        progress.update()

    progress.set_description_str("latency")
    feed = subject.feed(subject.batch, seed, folder)
    before, begin = noise.snapshot(), time.monotonic()
    (serving,) = time_pair(
        models,
        [feed],
        settings,
        budget=budget,
        target=target,
        launched=lambda left: launched(left, later=budget if subject.one_batch or not others else 2 * budget),
    )
    spent = time.monotonic() - begin
    disturbance = noise.between(
        before, noise.snapshot(), serving.quiet_share, serving.cpu_share if settings.threads == 1 else None
    )

    sizes = fitting_sizes([] if subject.one_batch else others, serving, spent, budget)
    left_out = dict.fromkeys(others, subject.one_batch) if subject.one_batch else sizes.left_out
    beside: list[PairedTiming] = []
    if sizes.fitting:
        progress.set_description_str("latency at other batch sizes")
        feeds = [subject.feed(size, seed, folder) for size in sizes.fitting]
        beside = time_pair(
            models, feeds, settings, budget=budget, target=target, seconds=SECONDS_BESIDE, launched=launched
        )

    rest = Rest(serving, spent, budget, sizes)
    footprints = None
    if params.bench.memory and rest.fits("memory"):
        progress.set_description_str("memory and load")
        seconds = min(budget / 2, budget - rest.least("operators", "call", "control"))
        fp32, int8 = measure_footprints(
            models, feed, identity, settings, budget=seconds, launched=lambda: launched(rest.left, later=0)
        )
        footprints = (fp32, int8)

    progress.set_description_str("profile")
    profile = operators.profile(models, feed, identity, settings, folder) if rest.fits("operators") else None
    empty = Path(identity.model)
    floor_ms = median_ms(ModelPair(empty, empty), identity.feed, settings, SECONDS_BESIDE)

    progress.set_description_str("control")
    itself = control.measured_once(
        models.fp32,
        subject.sha256[0],
        feed,
        settings,
        machine_id=subject.machine.machine_id,
        fits=lambda: rest.fits("control"),
        budget=rest.left,
        launched=lambda left: launched(left, later=0),
    )
    return Measurements(serving, tuple(beside), left_out, footprints, floor_ms, itself, disturbance, profile, rest)
