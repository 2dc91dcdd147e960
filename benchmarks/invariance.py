"""How much one answer depends on its batch and its padding, by activation_scale and portable, and what that costs.

Run from the root of the repository:
    python -m benchmarks.invariance MODEL.onnx SAMPLES [--batches 1 8 64] [--rows GLOB ...] [--pad 128]

SAMPLES is a folder of evaluation data that export wrote, or an .npz with an array per input of the model, axis 0
counting samples. For each setting it prints the size, and for each batch size the speed-up over fp32 (one thread, calls
interleaved in one process), SQNR and largest difference of the first float output on the judge samples; then how far
answers move between batch sizes. With --pad, for sequences with an attention mask, it also prints how far they move if
a sample is padded with zeros from its own length to that many tokens. For the answers of another CPU see
benchmarks/portable.py.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tabulate import tabulate

from stages.common.base.command import run_script
from stages.common.base.params import Params, Quantize
from stages.common.data import evaldata
from stages.common.model import model_file, sessions
from stages.quantize import linear, stage

SECONDS = 4
PADDED = 40


def answers(session: ort.InferenceSession, output: str, feed: Mapping[str, np.ndarray], batch: int) -> np.ndarray:
    """The output for all samples, served in batches."""
    count = len(next(iter(feed.values())))
    parts = [
        session.run([output], {name: array[at : at + batch] for name, array in feed.items()})[0]
        for at in range(0, count, batch)
    ]
    return np.concatenate(parts)


def speed_ups(opened: Mapping[str, ort.InferenceSession], feed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Time of the first session over that of each: the median over rounds, each of the fastest of five calls."""
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


def moved_by_padding(
    session: ort.InferenceSession, output: str, feed: Mapping[str, np.ndarray], mask: str, length: int
) -> float:
    """How far the answers to single samples move if they are padded with zeros from their own length."""
    largest = 0.0
    for at in range(PADDED):
        own = {name: array[at : at + 1, : int(feed[mask][at].sum())] for name, array in feed.items()}
        padded = {name: np.pad(array, ((0, 0), (0, length - array.shape[1]))) for name, array in own.items()}
        alone, other = (session.run([output], feed)[0] for feed in (own, padded))
        largest = max(largest, float(np.abs(alone - other).max()))
    return largest


def main() -> None:
    """Quantize in every setting, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rows", nargs="+", default=[], help="add a setting in which only these nodes get row scales")
    parser.add_argument("--method", default="dynamic", help="quantize.method")
    parser.add_argument("--pad", type=int, help="number of tokens to pad to")
    arguments = parser.parse_args()
    settings: dict[str, dict[str, Any]] = {"tensor": {}, "tensor, portable: false": {"portable": False}}
    if arguments.method == "dynamic":
        settings |= {"row": {"activation_scale": "row"}}
        settings |= {"row, portable: false": {"activation_scale": "row", "portable": False}}
    if arguments.rows:
        some = {"nodes": {name: {"activation_scale": "row"} for name in arguments.rows}}
        settings |= {"row in --rows": some, "row in --rows, portable: false": {**some, "portable": False}}
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.samples.is_dir():
            with np.load(arguments.samples) as stored:
                arrays = {name: stored[name] for name in stored.files}
            evaldata.write(Path(folder) / "eval", arrays, None, "samples", seed=0)
        data = evaldata.EvalData(arguments.samples if arguments.samples.is_dir() else Path(folder) / "eval")
        feed = data.read(data.indices("judge"))
        source = model_file.read(arguments.model, "your own export")
        opened = {"fp32": sessions.open_session(source)}
        sizes = {"fp32": model_file.stored_bytes(source) / 1e6}
        output = next(value.name for value in opened["fp32"].get_outputs() if "float" in value.type)
        for name, params in settings.items():
            whole = Params(quantize=Quantize(method=arguments.method, **params))
            made = stage.quantize(source, data, whole, str(arguments.model)).model
            if made is None:
                sys.exit(f"Nothing was quantized with {name}.")
            path = Path(folder) / "int8.onnx"
            with model_file.staged(made, path):
                pass
            opened[name], sizes[name] = sessions.open_session(path), model_file.size_mb(path)
        mask = next((name for name in feed if "mask" in name), None)
        if arguments.pad and mask is None:
            parser.error("--pad needs a model with an attention mask among its inputs.")
        padding = {
            name: moved_by_padding(session, output, feed, mask, arguments.pad)
            for name, session in opened.items()
            if arguments.pad and mask
        }
    rows = [
        [name, sizes[name], *figures, padding.get(name)]
        for name, figures in measured(opened, output, feed, arguments.batches).items()
    ]
    header = ["setting", "MB"]
    for batch in arguments.batches:
        header += [f"batch {batch}: x", "dB", "max"]
    print(tabulate(rows, [*header, "between batches", "by padding"], tablefmt="pipe", floatfmt=".4g"))


def measured(
    opened: Mapping[str, ort.InferenceSession], output: str, feed: Mapping[str, np.ndarray], batches: list[int]
) -> dict[str, list[float]]:
    """For each session and batch size: speed-up, SQNR, largest difference; last, how far answers move from the first.

    The first session is the reference.
    """
    by_batch = {
        batch: {name: answers(session, output, feed, batch) for name, session in opened.items()} for batch in batches
    }
    speeds = {batch: speed_ups(opened, {name: array[:batch] for name, array in feed.items()}) for batch in batches}
    rows = {}
    for name in opened:
        row: list[float] = []
        for batch in batches:
            made, reference = by_batch[batch][name], by_batch[batch][next(iter(opened))]
            row += [speeds[batch][name], linear.sqnr_db(reference, made), float(np.abs(reference - made).max())]
        row.append(max(float(np.abs(by_batch[batch][name] - by_batch[batches[0]][name]).max()) for batch in batches))
        rows[name] = row
    return rows


if __name__ == "__main__":
    run_script(main)
