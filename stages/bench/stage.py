"""Measure both models, alone on the machine, the speed-up at the serving batch first."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stages.bench import control, inputs, noise, operators
from stages.bench.footprint import Footprint, measure_footprints
from stages.bench.inputs import Inputs, write_one_node
from stages.bench.noise import Noise
from stages.bench.operators import Profile
from stages.common.base.params import Params
from stages.common.timing.interval import Interval
from stages.common.timing.launch import fewest_calls
from stages.common.timing.launches import LaunchSettings, ModelPair, median_ms, time_pair
from stages.common.timing.lock import alone
from stages.common.timing.summary import MIN_LAUNCHES, PairedTiming

SECONDS_BESIDE = 0.2
"""Timed in one launch at each batch size other than that of serving, and on the one-node model."""

OVERHEAD_BOUND = 5
"""A model whose call takes less than this many times an empty call is bound by the overhead of calls."""


@dataclass(frozen=True)
class Measurements:
    """What was measured: at the serving batch and at those beside it, which were left out and why, and so on.

    Attributes:
        footprints: of fp32 and INT8; None if params do not ask for them.
        floor_ms: what a call costs that computes nothing.
        control: the fp32 model against itself.
        noise: during the launches at the serving batch.
    """

    serving: PairedTiming
    beside: tuple[PairedTiming, ...]
    left_out: dict[int, str]
    footprints: tuple[Footprint, Footprint] | None
    floor_ms: float
    control: Interval
    noise: Noise
    profile: Profile

    def by_batch(self) -> list[PairedTiming]:
        """All timings, by rising batch size."""
        return sorted((self.serving, *self.beside), key=lambda timing: timing.samples)

    @property
    def overhead_bound(self) -> bool:
        """Whether the call itself takes more than a fifth of the INT8 model's time."""
        return self.serving.int8.p50_ms < OVERHEAD_BOUND * self.floor_ms

    def overhead(self) -> str:
        """A sentence where that is so, else empty."""
        if not self.overhead_bound:
            return ""
        return (
            f"A call that computes nothing takes {self.floor_ms * 1e3:.2g} us here, one of the INT8 model "
            f"{self.serving.int8.p50_ms * 1e3:.2g} us: INT8 can save little beside the call itself."
        )


@dataclass(frozen=True)
class BenchResult:
    """What was read, with which threads it was measured, and the measurements; None for two equal files."""

    inputs: Inputs
    threads: int
    measurements: Measurements | None

    def warnings(self) -> list[str]:
        """What makes the figures less than they seem: sentences."""
        machine = self.inputs.machine
        if self.threads <= machine.cores:
            return []
        return [
            f"serving.threads is {self.threads} and this machine has {machine.cores:g} "
            f"core{'s' * (machine.cores != 1)}: the threads wait for each other, and so do the models."
        ]


def run(params: Params) -> BenchResult:
    """Measure both models; two equal files are not measured, as there is nothing to compare.

    Raises:
        StageError: an input is missing, or a model cannot be measured.
    """
    subject = inputs.read(params)
    if subject.same_model:
        return BenchResult(subject, params.serving.threads, None)
    with (
        alone() as lock,
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        tqdm(bar_format="bench, {desc}{n} launches, {elapsed}", disable=None) as progress,
    ):
        measurements = _measure(subject, params, lock, Path(folder), progress)
    return BenchResult(subject, params.serving.threads, measurements)


def _measure(subject: Inputs, params: Params, lock: int, folder: Path, progress: tqdm) -> Measurements:
    models, seed = subject.models, params.bench.seed
    settings = LaunchSettings(params.serving.threads, seed, lock)
    one_node = write_one_node(folder)
    budget, target = params.bench.max_seconds, params.bench.target_halfwidth

    progress.set_description("latency")
    feed = subject.feed(subject.batch, seed, folder)
    before = noise.snapshot()
    (serving,) = time_pair(models, [feed], settings, budget=budget, target=target, launched=progress.update)
    disturbance = noise.between(
        before, noise.snapshot(), serving.quiet_share, serving.cpu_share if settings.threads == 1 else None
    )

    progress.set_description("latency at other batch sizes")
    sizes, left_out = _sizes(subject, serving, params)
    beside: list[PairedTiming] = []
    if sizes:
        feeds = [subject.feed(size, seed, folder) for size in sizes]
        beside = time_pair(
            models, feeds, settings, budget=budget, target=target, seconds=SECONDS_BESIDE, launched=progress.update
        )

    footprints = None
    if params.bench.memory:
        progress.set_description("memory and load")
        fp32, int8 = measure_footprints(models, feed, one_node, settings, launched=progress.update)
        footprints = (fp32, int8)

    progress.set_description("control")
    itself = control.measured_once(
        models.fp32, subject.sha256[0], feed, settings, machine_id=subject.machine.machine_id, launched=progress.update
    )
    empty = Path(one_node.model)
    floor_ms = median_ms(ModelPair(empty, empty), one_node.feed, settings, SECONDS_BESIDE)

    progress.set_description("profile")
    profile = operators.profile(models, feed, one_node, settings, folder)
    return Measurements(serving, tuple(beside), left_out, footprints, floor_ms, itself, disturbance, profile)


def _sizes(subject: Inputs, serving: PairedTiming, params: Params) -> tuple[list[int], dict[int, str]]:
    """The batch sizes to measure besides that of serving, and those to leave out, with the reason."""
    wanted = sorted(set(params.bench.batch_sizes) - {subject.batch})
    if subject.one_batch:
        return [], dict.fromkeys(wanted, subject.one_batch)
    sizes: list[int] = []
    left_out: dict[int, str] = {}
    spent = 0.0
    for size in wanted:
        # At worst: time grows with the batch, and launches do no more than they must.
        call_ns = (serving.fp32.p50_ms + serving.int8.p50_ms) / 2 * 1e6 * size / subject.batch
        seconds = MIN_LAUNCHES * fewest_calls(call_ns) * call_ns / 1e9
        if spent + seconds > 2 * params.bench.max_seconds:
            left_out[size] = f"it could take {seconds:.0f} s; raise bench.max_seconds to measure it"
            continue
        spent += seconds
        sizes.append(size)
    return sizes, left_out
