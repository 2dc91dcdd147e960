"""Check the method on this machine: of a model against itself, 95 % of the intervals must cover 1."""

import tempfile
import time
from pathlib import Path
from statistics import median

from tabulate import tabulate
from tqdm import tqdm

from stages.bench import inputs
from stages.common.base.params import Params
from stages.common.timing.launches import LaunchSettings, ModelPair, time_pair
from stages.common.timing.lock import alone
from stages.common.timing.summary import PairedTiming

CHECKS = 20
MUST_COVER = 18
"""If each of 20 intervals covers the truth with a probability of 95 %, at least 18 do so in 92 of 100 self-checks."""


def self_check(params: Params) -> int:
    """Compare the fp32 model with itself 20 times, print the intervals, and return 0 if at least 18 cover 1, else 1."""
    subject = inputs.read(params)
    itself = ModelPair(subject.models.fp32, subject.models.fp32)
    timings: list[PairedTiming] = []
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, alone() as lock:
        feed = subject.feed(subject.batch, params.bench.seed, Path(folder))
        for number in tqdm(range(CHECKS), desc="self-check", disable=None):
            start = time.monotonic()
            settings = LaunchSettings(params.serving.threads, params.bench.seed + number, lock)
            budget, target = params.bench.max_seconds, params.bench.target_halfwidth
            timings += time_pair(itself, [feed], settings, budget=budget, target=target)
            seconds.append(time.monotonic() - start)
    return _print_checks(timings, seconds)


def _print_checks(timings: list[PairedTiming], seconds: list[float]) -> int:
    intervals = [timing.interval for timing in timings]
    rows = [
        (interval.ratio, interval.low, interval.high, f"{interval.halfwidth:.2%}", timing.launches, spent)
        for timing, interval, spent in zip(timings, intervals, seconds, strict=True)
    ]
    headers = ("speed-up", "low95", "high95", "half-width", "launches", "seconds")
    print(tabulate(rows, headers, tablefmt="simple", floatfmt=(".4f", ".4f", ".4f", "", "d", ".1f")))
    covered = sum(interval.covers(1) for interval in intervals)
    holds = covered >= MUST_COVER
    print(
        f"\nThe model against itself: {covered} of {CHECKS} intervals cover 1, and at least {MUST_COVER} must; "
        f"median half-width {median(interval.halfwidth for interval in intervals):.2%}, "
        f"median error {median(abs(interval.ratio - 1) for interval in intervals):.2%}, "
        f"median time {median(seconds):.1f} s."
    )
    print(
        "The intervals hold here." if holds else "Do not trust intervals measured on this machine in its current state."
    )
    return 0 if holds else 1
