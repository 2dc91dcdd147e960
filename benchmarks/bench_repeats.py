"""Does bench repeat its figures? Measure speed-up, memory and load time five times, and print Markdown tables.

Run from the root of the repository, after `dvc repro`: python -m benchmarks.bench_repeats
Beside each speed-up is that of the usual method: the mean of 100 calls of fp32 after ten to warm up, then the same for
INT8, in one process.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from stages.bench import inputs
from stages.bench.footprint import measure_footprints
from stages.bench.inputs import write_identity
from stages.common.base import params
from stages.common.base.command import run_script
from stages.common.timing.feed import StoredFeed
from stages.common.timing.launches import LaunchSettings, ModelPair, time_pair
from stages.common.timing.lock import alone

REPEATS = 5

NAIVE = """
import sys, time
import onnxruntime as ort
from stages.common.timing.feed import load
feed = load({"path": sys.argv[3], "names": sys.argv[5:]})
means = []
for model in sys.argv[1:3]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(sys.argv[4])
    session = ort.InferenceSession(model, options)
    for _ in range(10):
        session.run(None, feed)
    start = time.perf_counter()
    for _ in range(100):
        session.run(None, feed)
    means.append(time.perf_counter() - start)
print(means[0] / means[1])
"""


def naive(models: ModelPair, feed: StoredFeed, threads: int) -> float:
    """The usual method: the ratio of two means, one model timed after the other."""
    arguments = [*map(str, models), feed.path, str(threads), *feed.names]
    return float(subprocess.check_output([sys.executable, "-c", NAIVE, *arguments], text=True))


def spread(values: Sequence[float]) -> str:
    """The largest distance from the median, as a share of it."""
    middle = statistics.median(values)
    return f"{max(abs(value / middle - 1) for value in values):.1%}"


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    knobs = params.load()
    subject = inputs.read(knobs)
    rows: list[tuple[object, ...]] = []
    speedups: list[float] = []
    naives: list[float] = []
    footprints: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name, alone() as lock:
        folder = Path(name)
        feed = subject.feed(subject.batch, knobs.bench.seed, folder)
        identity = write_identity(folder)
        for number in range(REPEATS):
            settings = LaunchSettings(knobs.serving.threads, knobs.bench.seed + number, lock)
            start = time.monotonic()
            (timing,) = time_pair(
                subject.models,
                [feed],
                settings,
                budget=knobs.bench.max_seconds,
                target=knobs.bench.target_halfwidth,
            )
            seconds = time.monotonic() - start
            speedups.append(timing.interval.ratio)
            naives.append(naive(subject.models, feed, knobs.serving.threads))
            rows.append(
                (number + 1, str(timing.interval), f"{seconds:.1f}", f"{timing.quiet_share:.0%}", f"{naives[-1]:.3f}")
            )
            fp32, int8 = measure_footprints(subject.models, feed, identity, settings)
            footprints.append([fp32.resident_mb, int8.resident_mb, fp32.load_ms, int8.load_ms])
    rows.append(("furthest from the median", spread(speedups), "", "", spread(naives)))
    headers = ("run", "bench: speed-up (95 % interval)", "seconds", "quiet rounds", "sequential means: speed-up")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    print()
    columns = list(zip(*footprints, strict=True))
    table = [(number + 1, *(f"{value:.2f}" for value in row)) for number, row in enumerate(footprints)]
    table.append(("furthest from the median", *(spread(column) for column in columns)))
    headers = ("run", "memory fp32, MB", "memory INT8, MB", "load fp32, ms", "load INT8, ms")
    print(tabulate(table, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    run_script(main)
