"""How much one answer depends on its batch and the CPU, by activation_scale and portable, and what that costs.

    python benchmarks/invariance.py MODEL.onnx SAMPLES.npz [--batches 1 8 64] [--rows GLOB ...] [--cpu Haswell-v4]

SAMPLES holds an array per input of the model, axis 0 counting samples. For each setting it prints the size, and per
batch size the speed-up over fp32 (one thread, calls interleaved in one process), SQNR and largest difference of the
first float output on the judge samples; then how far answers move between the batches. With --cpu, which needs
qemu-user, it also says how far the first samples move on that CPU.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages.common.base.params import Params, Quantize
from stages.common.data import evaldata
from stages.common.model import model_file, sessions
from stages.quantize import stage

SECONDS = 5
EMULATED = 40

ON_ANOTHER_CPU = """
import json, sys
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = np.load(sys.argv[2])
count = len(feeds[feeds.files[0]])
rows = [{name: feeds[name][at : at + 1] for name in feeds.files} for at in range(count)]
print(json.dumps([session.run([sys.argv[3]], row)[0].tolist() for row in rows]))
"""


def answers(session: ort.InferenceSession, output: str, feed: Mapping[str, np.ndarray], batch: int) -> np.ndarray:
    """The output for all samples, served in batches."""
    count = len(next(iter(feed.values())))
    parts = [
        session.run([output], {name: array[at : at + batch] for name, array in feed.items()})[0]
        for at in range(0, count, batch)
    ]
    return np.concatenate(parts)


def speed_ups(opened: Mapping[str, ort.InferenceSession], feed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Time of the first session over that of each: the median over rounds of the fastest of five calls."""
    rounds: dict[str, list[float]] = {name: [] for name in opened}
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS * len(opened):
        for name, session in opened.items():
            calls = []
            for _ in range(5):
                before = time.perf_counter()
                session.run(None, dict(feed))
                calls.append(time.perf_counter() - before)
            rounds[name].append(min(calls))
    first = np.array(next(iter(rounds.values())))
    return {name: float(np.median(first / np.array(times))) for name, times in rounds.items()}


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """10 log10 of the power of the reference over that of the difference, in dB."""
    noise = float(np.sum((reference - other).astype(np.float64) ** 2))
    return float(10 * np.log10(np.sum(reference.astype(np.float64) ** 2) / noise)) if noise else float("inf")


def emulated(model: Path, feed: Mapping[str, np.ndarray], output: str, cpu: str) -> np.ndarray:
    """The output for the samples, one by one, on another CPU."""
    with tempfile.TemporaryDirectory() as folder:
        arrays: dict[str, Any] = dict(feed)
        np.savez(Path(folder) / "feeds.npz", **arrays)
        command = ["qemu-x86_64", "-cpu", cpu, sys.executable, "-c", ON_ANOTHER_CPU, str(model), f"{folder}/feeds.npz"]
        child = subprocess.run([*command, output], capture_output=True, text=True, check=True)
    return np.concatenate([np.array(each, np.float32) for each in json.loads(child.stdout)])


def main() -> None:
    """Quantize in every setting, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rows", nargs="+", default=[], help="nodes that get row scales in a setting of its own")
    parser.add_argument("--method", default="dynamic", help="quantize.method")
    parser.add_argument("--cpu", help="a CPU that qemu emulates")
    arguments = parser.parse_args()
    if arguments.cpu and not shutil.which("qemu-x86_64"):
        parser.error("--cpu needs qemu-x86_64, which is in the package qemu-user.")
    settings: dict[str, dict[str, Any]] = {"tensor": {}, "tensor, portable: false": {"portable": False}}
    if arguments.method == "dynamic":
        settings |= {"row": {"activation_scale": "row"}}
        settings |= {"row, portable: false": {"activation_scale": "row", "portable": False}}
    if arguments.rows:
        settings["row in --rows"] = {"nodes": {name: {"activation_scale": "row"} for name in arguments.rows}}
    with np.load(arguments.samples) as stored, tempfile.TemporaryDirectory() as folder:
        evaldata.write(Path(folder) / "eval", {name: stored[name] for name in stored.files}, None, "samples", seed=0)
        data = evaldata.EvalData(Path(folder) / "eval")
        feed = data.read(data.indices("judge"))
        source = model_file.read(arguments.model, "your own export")
        opened = {"fp32": sessions.open_session(source)}
        sizes = {"fp32": model_file.stored_bytes(source) / 1e6}
        output = next(each.name for each in opened["fp32"].get_outputs() if "float" in each.type)
        first = {name: array[:EMULATED] for name, array in feed.items()}
        elsewhere: dict[str, float] = {}
        for name, params in settings.items():
            whole = Params(quantize=Quantize(method=arguments.method, **params))
            made = stage.quantize(source, data, whole, str(arguments.model)).model
            if made is None:
                sys.exit(f"Nothing was quantized with {name}.")
            path = Path(folder) / "int8.onnx"
            with model_file.staged(made, path):
                pass
            opened[name], sizes[name] = sessions.open_session(path), model_file.size_mb(path)
            if arguments.cpu:
                moved = emulated(path, first, output, arguments.cpu) - answers(opened[name], output, first, 1)
                elsewhere[name] = float(np.abs(moved).max())
    rows = [
        [name, sizes[name], *figures, elsewhere.get(name)]
        for name, figures in measured(opened, output, feed, arguments.batches).items()
    ]
    header = ["setting", "MB"]
    for batch in arguments.batches:
        header += [f"batch {batch}: x", "dB", "max"]
    print(tabulate(rows, [*header, "between batches", "other CPU"], tablefmt="simple", floatfmt=".3g"))


def measured(
    opened: Mapping[str, ort.InferenceSession], output: str, feed: Mapping[str, np.ndarray], batches: list[int]
) -> dict[str, list[float]]:
    """For each session, per batch: speed-up, SQNR and largest difference; then how far the batches lie from the first.

    The first session is the reference.
    """
    by_batch = {batch: {name: answers(each, output, feed, batch) for name, each in opened.items()} for batch in batches}
    speeds = {batch: speed_ups(opened, {name: array[:batch] for name, array in feed.items()}) for batch in batches}
    rows = {}
    for name in opened:
        row: list[float] = []
        for batch in batches:
            made, reference = by_batch[batch][name], by_batch[batch][next(iter(opened))]
            row += [speeds[batch][name], sqnr_db(reference, made), float(np.abs(reference - made).max())]
        row.append(max(float(np.abs(by_batch[batch][name] - by_batch[batches[0]][name]).max()) for batch in batches))
        rows[name] = row
    return rows


if __name__ == "__main__":
    main()
