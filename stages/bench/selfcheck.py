"""Does the method hold on this machine? A model against itself, again and again: 95 % of the intervals cover 1."""

import tempfile
import time
from pathlib import Path
from statistics import median

from tabulate import tabulate
from tqdm import tqdm

from stages.bench import feeds, inputs
from stages.bench.comparison import Comparison
from stages.bench.latency import Settings, compare
from stages.bench.lock import alone
from stages.common.base.params import Params

CHECKS = 20
MUST_COVER = 18
"""Of 20 intervals that each cover the truth with a chance of 95 %, at least 18 do so in 92 of 100 self-checks."""


def self_check(params: Params) -> int:
    """Compare the fp32 model with itself 20 times, as bench compares two models, and print what came out.

    Returns:
        0 if the interval covered 1 in at least 18 of them, else 1.

    Raises:
        StageError: an input is missing, or the model cannot be measured.
    """
    subject = inputs.subject(params)
    pair = (subject.models[0], subject.models[0])
    checks: list[Comparison] = []
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, alone() as lock:
        serving = feeds.draw(subject.data, subject.batch, params.bench.seed, Path(folder))
        for number in tqdm(range(CHECKS), desc="self-check", disable=None):
            start = time.monotonic()
            settings = Settings(params.serving.threads, params.bench.seed + number, lock)
            budget, target = params.bench.max_seconds, params.bench.target_halfwidth
            checks += compare(pair, [serving], settings, budget=budget, target=target)
            seconds.append(time.monotonic() - start)
    return _tell(checks, seconds)


def _tell(checks: list[Comparison], seconds: list[float]) -> int:
    intervals = [each.interval for each in checks]
    rows = [
        (each.ratio, each.low, each.high, f"{each.halfwidth:.2%}", check.launches, spent)
        for check, each, spent in zip(checks, intervals, seconds, strict=True)
    ]
    headers = ("speed-up", "low95", "high95", "half-width", "launches", "seconds")
    print(tabulate(rows, headers, tablefmt="simple", floatfmt=(".4f", ".4f", ".4f", "", "d", ".1f")))
    covered = sum(each.covers(1) for each in intervals)
    holds = covered >= MUST_COVER
    print()
    print(
        f"The model against itself: {covered} of {CHECKS} intervals cover 1, where at least {MUST_COVER} must; "
        f"median half-width {median(each.halfwidth for each in intervals):.2%}, "
        f"median error {median(abs(each.ratio - 1) for each in intervals):.2%}, "
        f"median time {median(seconds):.1f} s. "
        f"{'The intervals hold here.' if holds else 'Do not trust intervals measured here, as it is now.'}"
    )
    return 0 if holds else 1
