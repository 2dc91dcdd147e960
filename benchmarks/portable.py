"""What portable weights cost and gain, as a Markdown table: models quantized with quantize.portable true and false.

Run from the root of the repository: python -m benchmarks.portable FOLDER [NAME ...] [--cpu Haswell-v4]
FOLDER holds a folder per model with `model.onnx` and `samples.npz` (whole feeds along axis 0) or `inputs.npz` (one
feed). All other settings are the defaults. For the methods dynamic and static it prints the share of pairs of weights
that can saturate, and the SQNR, on the judge samples, of the output for which portable weights cost most. The last cost
is over all feeds, again for the output where it is highest. With --cpu, which needs qemu-user, it also prints how far
the outputs of the first judge samples differ between this CPU and that one.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks import zoo
from stages.common.base.command import run_script
from stages.common.base.errors import StageError
from stages.common.base.params import Params, Quantize
from stages.common.data import evaldata
from stages.common.model import model_file, sessions
from stages.common.model.sessions import Feed
from stages.quantize import linear, saturation, stage

HEADERS = (
    "model",
    "method",
    "pairs at risk: portable",
    "full range",
    "SQNR, dB: portable",
    "full range",
    "cost",
    "on all",
)
ELSEWHERE = ("between CPUs: portable", "full range")
EMULATED = 32

ON_ANOTHER_CPU = """
import json, sys
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
models, names, feeds = json.loads(sys.argv[1])
sessions = [ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for model in models]
runs = [[session.run(names, dict(np.load(feed))) for feed in feeds] for session in sessions]
print(json.dumps(runs, default=np.ndarray.tolist))
"""

Answers = dict[str, list[np.ndarray]]
"""The float outputs by name, an array per feed."""


def main() -> None:
    """Quantize both ways, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--methods", nargs="+", default=["dynamic", "static"])
    parser.add_argument("--cpu", help="a CPU that qemu emulates")
    arguments = parser.parse_args()
    if arguments.cpu and not shutil.which("qemu-x86_64"):
        parser.error("--cpu needs qemu-x86_64, which is in the package qemu-user.")
    headers = HEADERS + (ELSEWHERE if arguments.cpu else ())
    for cells in (headers, ["---"] * len(headers)):
        print(f"| {' | '.join(cells)} |")
    for name in arguments.names or zoo.names(arguments.folder):
        try:
            for row in rows(arguments.folder / name, arguments.methods, arguments.cpu):
                print(f"| {' | '.join((name, *row))} |", flush=True)
        except StageError as error:
            print(f"{name}: {error}", file=sys.stderr)


def rows(folder: Path, methods: Sequence[str], cpu: str | None) -> Iterator[list[str]]:
    """The rows of one model; none for a method that quantizes nothing in it.

    Raises:
        StageError: the model cannot be quantized.
    """
    source = model_file.read(folder / "model.onnx", "its exporter")
    with tempfile.TemporaryDirectory() as work:
        evaldata.write(Path(work) / "eval", zoo.feeds(folder), None, "feeds", seed=0)
        data = evaldata.EvalData(Path(work) / "eval")
        judged = data.indices("judge")
        feeds = [batch.feed for batch in data.batches(np.arange(data.samples), 1)]
        expected = answers(source, feeds)
        for method in methods if expected else ():
            shares, some, whole, made_here, files = [], [], [], [], []
            for portable in (True, False):
                params = Params(quantize=Quantize.model_validate({"method": method, "portable": portable}))
                made = stage.quantize(source, data, params, folder.name)
                if made.model is None:
                    break
                shares.append(sum(made.pairs.values(), saturation.Pairs()).share)
                here = answers(made.model, feeds)
                some.append(ratios(expected, here, judged))
                whole.append(ratios(expected, here, range(len(feeds))))
                made_here.append({name: [here[name][at] for at in judged[:EMULATED]] for name in here})
                files.append(Path(work) / f"{portable}.onnx")
                with model_file.staged(made.model, files[-1]):
                    pass
            else:
                worst, cost = dearest(*some)
                first = [feeds[at] for at in judged[:EMULATED]]
                there = emulated(files, first, list(expected), cpu) if cpu else []
                yield [
                    method,
                    *(f"{share:.2%}" for share in shares),
                    *(f"{db[worst]:.1f}" for db in some),
                    *(f"{factor:.2f}" for factor in (cost, dearest(*whole)[1])),
                    *(f"{difference(*pair):.1g}" for pair in zip(made_here, there, strict=False)),
                ]


def ratios(expected: Answers, made: Answers, feeds: Iterable[int]) -> dict[str, float]:
    """The SQNR of each output over some feeds."""
    at = list(feeds)
    return {
        name: linear.sqnr_db(*(_joined([of[name][feed] for feed in at]) for of in (expected, made)))
        for name in expected
    }


def dearest(portable: Mapping[str, float], full: Mapping[str, float]) -> tuple[str, float]:
    """The output for which portable weights cost most, and how much, in dB; 0 if it was exact in both."""
    cost = {name: full[name] - portable[name] for name in full}
    worst = max(cost, key=lambda name: -math.inf if math.isnan(cost[name]) else cost[name])
    return worst, cost[worst] if math.isfinite(cost[worst]) else 0.0


def answers(model: ir.Model, feeds: Sequence[Feed]) -> Answers:
    """The float outputs of a model."""
    session = sessions.open_session(model)
    names = [output.name for output in session.get_outputs()]
    runs = [sessions.answers(session, feed, name="the model") for feed in feeds]
    floats = [name for name in names if runs[0][name].dtype.kind == "f" and runs[0][name].size]
    return {name: [run[name] for run in runs] for name in floats}


def emulated(models: Sequence[Path], feeds: Sequence[Feed], names: Sequence[str], cpu: str) -> list[Answers]:
    """These outputs of each model file on a CPU that qemu emulates; the feeds are written beside the first file."""
    files = []
    for number, feed in enumerate(feeds):
        files.append(str(models[0].with_name(f"{number}.npz")))
        np.savez(files[-1], **feed)  # type: ignore[arg-type]
    job = json.dumps([[str(model) for model in models], names, files])
    command = ["qemu-x86_64", "-cpu", cpu, sys.executable, "-c", ON_ANOTHER_CPU, job]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    return [
        {name: [np.array(run[at], np.float32) for run in runs] for at, name in enumerate(names)}
        for runs in json.loads(child.stdout)
    ]


def difference(some: Answers, others: Answers) -> float:
    """The largest absolute difference of any output."""
    return max(float(np.max(np.abs(_joined(some[name]) - _joined(others[name])), initial=0)) for name in some)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays])


if __name__ == "__main__":
    run_script(main)
