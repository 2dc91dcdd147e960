"""All measurements of one bench, what decides first."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stages.bench import control, feeds, footprint, latency, noise, one_node, profiling
from stages.bench.comparison import MIN_LAUNCHES, Comparison
from stages.bench.footprint import Footprint
from stages.bench.inputs import Findings, Subject
from stages.bench.interval import Interval
from stages.bench.latency import Settings
from stages.bench.launch import fewest_calls
from stages.bench.noise import Noise
from stages.bench.operators import Profile
from stages.common.base.params import Params

SECONDS_BESIDE = 0.2
"""Timed in one launch at each batch size beside that of serving, and on the one-node model."""

OVERHEAD_BOUND = 5
"""A model within this many times of an empty call is bound by the overhead of calls."""


@dataclass(frozen=True)
class Measured:
    """What the measurements found.

    Attributes:
        serving: at the serving batch.
        beside: at other batch sizes.
        left_out: batch sizes that were not measured, and why.
        footprints: of fp32 and INT8; None where params do not ask for them.
        floor_ms: what a call costs that computes nothing.
        control: the fp32 model against itself.
        noise: during the launches at the serving batch.
        profile: time by operator type.
    """

    serving: Comparison
    beside: tuple[Comparison, ...]
    left_out: dict[int, str]
    footprints: tuple[Footprint, Footprint] | None
    floor_ms: float
    control: Interval
    noise: Noise
    profile: Profile

    def by_batch(self) -> list[Comparison]:
        """All comparisons, by rising batch size."""
        return sorted((self.serving, *self.beside), key=lambda each: each.samples)

    @property
    def overhead_bound(self) -> bool:
        """Whether the call itself takes a fifth of the INT8 model's time or more."""
        return self.serving.int8.p50_ms < OVERHEAD_BOUND * self.floor_ms

    def overhead(self) -> str:
        """That in words: a sentence without its stop, or nothing."""
        if not self.overhead_bound:
            return ""
        return (
            f"A call that computes nothing takes {self.floor_ms * 1e3:.2g} us here, one of the INT8 model "
            f"{self.serving.int8.p50_ms * 1e3:.2g} us: what INT8 can gain is small beside the call"
        )


def measure(subject: Subject, findings: Findings, params: Params, lock: int) -> Measured:
    """Measure both models, alone on the machine.

    Where nothing was quantized both files hold one model: it is measured once, and its speed-up over itself is 1.

    Args:
        subject: the models and their data.
        findings: of host and quantize.
        params: the sections bench and serving.
        lock: descriptor of the lock.

    Raises:
        StageError: a model does not load or run.
    """
    settings = Settings(params.serving.threads, params.bench.seed, lock)
    # Where nothing was quantized there is no speed-up to find: as few launches as there may be.
    budget = params.bench.max_seconds if findings.quantized else 0
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        tqdm(bar_format="bench, {desc}{n} launches, {elapsed}", disable=None) as bar,
    ):
        folder = Path(name)
        one = one_node.write(folder)
        bounds = {"budget": budget, "target": params.bench.target_halfwidth, "launched": bar.update}

        bar.set_description("latency")
        feed = feeds.draw(subject.data, subject.batch, params.bench.seed, folder)
        before = noise.snapshot()
        (serving,) = latency.compare(subject.models, [feed], settings, **bounds)
        disturbance = noise.between(
            before, noise.snapshot(), serving.quiet_share, serving.cpu_share if settings.threads == 1 else None
        )

        bar.set_description("latency at other batch sizes")
        sizes, left_out = _sizes(subject, serving, params)
        beside: list[Comparison] = []
        if sizes:
            others = [feeds.draw(subject.data, size, params.bench.seed, folder) for size in sizes]
            beside = latency.compare(subject.models, others, settings, **bounds, seconds=SECONDS_BESIDE)

        footprints = None
        if params.bench.memory:
            bar.set_description("memory and load")
            models = subject.models if findings.quantized else subject.models[:1]
            found = footprint.measure(models, feed, one, settings, launched=bar.update)
            footprints = (found[0], found[-1])

        bar.set_description("control")
        itself = serving.interval
        if findings.quantized:
            itself = control.once(subject.models[0], feed, settings, findings.machine_id, launched=bar.update)
        floor_ms = latency.median_ms(one.model, one.feed, settings, SECONDS_BESIDE)

        bar.set_description("profile")
        profile = profiling.profile(subject.models, feed, one, settings, folder)
    if not findings.quantized:
        serving, beside = serving.of_one_model(), [each.of_one_model() for each in beside]
        profile = Profile(profile.fp32, profile.fp32)
    return Measured(serving, tuple(beside), left_out, footprints, floor_ms, itself, disturbance, profile)


def _sizes(subject: Subject, serving: Comparison, params: Params) -> tuple[list[int], dict[int, str]]:
    """The batch sizes to measure beside that of serving, and those to leave out, with the reason."""
    wanted = sorted(set(params.bench.batch_sizes) - {subject.batch})
    if subject.fixed:
        return [], dict.fromkeys(wanted, subject.fixed)
    sizes: list[int] = []
    left_out: dict[int, str] = {}
    spent = 0.0
    for size in wanted:
        # At worst: time grows with the batch, and launches do no more than they must.
        call_ns = (serving.fp32.p50_ms + serving.int8.p50_ms) / 2 * 1e6 * size / subject.batch
        seconds = MIN_LAUNCHES * fewest_calls(call_ns) * call_ns / 1e9
        if spent + seconds > 2 * params.bench.max_seconds:
            left_out[size] = f"it could take {seconds:.0f} s: raise bench.max_seconds to measure it"
            continue
        spent += seconds
        sizes.append(size)
    return sizes, left_out
