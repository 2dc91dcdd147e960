"""What parity costs: its time compared with a bare loop over both sessions, and its memory as the samples grow.

Run from the root after `dvc repro`:  python -m benchmarks.parity --rows 10000 1000000

It needs artifacts/model.onnx and artifacts/model.int8.onnx of the default model, makes evaluation data of that many
rows in a temporary folder (digits with noise, from a fixed seed), and runs there, each in a process of its own:

- bare: both sessions on the same batches, nothing else;
- parity: `python -m stages.parity`, without trials for advice.

Throughput is bare over parity: by CPU time, which other work on the machine hardly affects, and by the clock.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from tabulate import tabulate

from stages.common.base import paths
from stages.common.base.command import run_script
from stages.common.data import evaldata

ROOT = Path.cwd()
CHUNK = 10_000

_WITH_PEAK = """
import re, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())
    open("peak_kb", "w").write(peak[1])
"""


def main() -> None:
    """Measure and print one row for each number of samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000], help="samples to judge")
    parser.add_argument("--batch", type=int, default=1, help="serving.batch_size")
    parser.add_argument("--repeats", type=int, default=1, help="alternate the two this many times, and show medians")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare(arguments.batch)
        return
    table = [_measured(rows, arguments.batch, arguments.repeats) for rows in arguments.rows]
    header = ("samples", "batch", "bare, CPU s", "parity, CPU s", "throughput by CPU", "by clock", "peak MB")
    print(tabulate(table, header, tablefmt="simple", floatfmt=("d", "d", ".2f", ".2f", ".3f", ".3f", ".0f")))


def bare(batch: int) -> None:
    """The loop that parity is compared with."""
    from stages.common.model.sessions import open_session

    data = evaldata.EvalData()
    sessions = [open_session(path) for path in (paths.FP32_MODEL, paths.INT8_MODEL)]
    for samples in data.batches(data.indices("judge"), batch):
        for session in sessions:
            session.run(None, samples.feed)


@dataclass(frozen=True)
class _Cost:
    wall: float
    cpu: float
    peak_mb: float


def _measured(rows: int, batch: int, repeats: int) -> tuple[float, ...]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / paths.ARTIFACTS).mkdir()
        for path in (paths.FP32_MODEL, paths.INT8_MODEL):
            shutil.copyfile(ROOT / path, place / path)
        _write_rows(place / paths.EVAL, rows)
        params = f"serving: {{batch_size: {batch}}}\nparity: {{advice_seconds: null}}\n"
        (place / "params.yaml").write_text(params, encoding="utf-8")
        pairs = [
            (_run(place, "benchmarks.parity", "--bare", "--batch", str(batch)), _run(place, "stages.parity"))
            for _ in range(repeats)
        ]
    return (
        rows,
        batch,
        *(median(pair[side].cpu for pair in pairs) for side in (0, 1)),
        median(bare.cpu / parity.cpu for bare, parity in pairs),
        median(bare.wall / parity.wall for bare, parity in pairs),
        max(parity.peak_mb for _, parity in pairs),
    )


def _run(place: Path, *command: str) -> _Cost:
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_PEAK, *command],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    peak = int((place / "peak_kb").read_text(encoding="utf-8")) / 1e3
    return _Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, peak)


def _write_rows(folder: Path, rows: int) -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = np.lib.format.open_memmap(Path(scratch) / "X.npy", "w+", np.float32, (rows, images.shape[1]))
        known = np.empty(rows, dtype=np.int64)
        for start in range(0, rows, CHUNK):
            picks = random.integers(0, len(images), size=min(CHUNK, rows - start))
            noise = random.normal(0, 0.5, size=(len(picks), images.shape[1]))
            inputs[start : start + len(picks)] = np.where(images[picks] > 0, images[picks] + noise, 0)
            known[start : start + len(picks)] = labels[picks]
        evaldata.write(folder, {"X": inputs}, known, "samples", seed=0)
    np.save(folder / "search.npy", np.arange(1))
    np.save(folder / "judge.npy", np.arange(rows))


if __name__ == "__main__":
    run_script(main)
