"""Method auto against each single method on one model: size, speed-up over the source, and parity on judge samples.

Run from the root:  python -m benchmarks.auto model.onnx samples.npz --layout feeds --parity min_sqnr_db=30

Each method runs through export, quantize and parity in a temporary folder. Then all models are timed in turn in one
process, so that whatever disturbs the machine meets them all, on one feed of the judge samples. The table is Markdown.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from stages.common.data.evaldata import EvalData
from stages.common.model.sessions import open_session
from stages.quantize.auto.timing import call, in_turn, ratio

ROOT = Path.cwd()

METHODS: dict[str, dict[str, Any]] = {
    "dynamic": {"method": "dynamic"},
    "dynamic, per tensor": {"method": "dynamic", "per_channel": False},
    "dynamic, per row": {"method": "dynamic", "activation_scale": "row"},
    "static": {"method": "static"},
    "weight_only": {"method": "weight_only"},
    "auto": {"method": "auto"},
    "auto, size": {"method": "auto", "search": {"objective": "size"}},
}

TOLERANCES = ("abs_tol", "mean_tol", "max_nrmse", "min_sqnr_db", "min_cosine")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto", description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--layout", choices=("samples", "feeds"), default="samples")
    parser.add_argument("--batch", type=int, default=1, help="serving.batch_size")
    parser.add_argument("--parity", nargs="*", default=[], metavar="KEY=VALUE", help="tolerances; the others are off")
    parser.add_argument("--seconds", type=float, default=2.0, help="timed of each model")
    arguments = parser.parse_args()
    given = {key: float(value) for key, _, value in (text.partition("=") for text in arguments.parity)}
    params = {
        "export": {"source": "model.onnx", "eval_data": "samples.npz", "eval_layout": arguments.layout},
        "serving": {"batch_size": arguments.batch},
        "parity": {**dict.fromkeys(TOLERANCES), **given} if given else {},
    }
    with tempfile.TemporaryDirectory(prefix="auto-") as name:
        folder = Path(name)
        shutil.copy(arguments.model, folder / "model.onnx")
        shutil.copy(arguments.samples, folder / "samples.npz")
        rows: list[list[str]] = []
        made: dict[str, Path | None] = {}
        for method, knobs in METHODS.items():
            (folder / "params.yaml").write_text(yaml.safe_dump({**params, "quantize": knobs}))
            if not made and (error := _run(folder, "export")):
                raise SystemExit(error)
            error = _run(folder, "quantize") or _run(folder, "parity")
            made[method] = None if error else folder / f"{len(made)}.onnx"
            if path := made[method]:
                shutil.copy(folder / "artifacts/model.int8.onnx", path)
            rows.append([method, *(_figures(folder) if not error else ["", error[:90], ""])])
        speedups = _speedups(folder, [path for path in made.values() if path], arguments)
        for row, path in zip(rows, made.values(), strict=True):
            row.insert(1, "" if path is None else next(speedups))
        print(tabulate(rows, ("method", "speed-up", "times smaller", "parity", "trials"), tablefmt="pipe"))


def _run(folder: Path, stage: str) -> str:
    """Run a stage; its message where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def _figures(folder: Path) -> list[str]:
    quantize, parity = (json.loads((folder / f"metrics/{name}.json").read_text()) for name in ("quantize", "parity"))
    diff = parity["diff"]
    answers = f"{'passes' if parity['passed'] else 'fails'}: max {diff['max_abs']}, {diff['sqnr_db']} dB"
    return [str(quantize["size"]["times_smaller"]), answers, str(quantize["search"]["evals"] or "")]


def _speedups(folder: Path, models: list[Path], arguments: argparse.Namespace) -> Iterator[str]:
    """Of each model over the source, with its interval."""
    data = EvalData(folder / "artifacts/eval")
    feed = next(data.batches(data.indices("judge")[: arguments.batch], arguments.batch)).feed
    calls = [call(open_session(path), feed) for path in (folder / "model.onnx", *models)]
    rounds = in_turn(calls, arguments.seconds * len(calls))
    for number in range(1, len(calls)):
        measured = ratio(rounds[:, 0], rounds[:, number])
        yield f"{measured.ratio:.2f} ({measured.low:.2f} to {measured.high:.2f})"


if __name__ == "__main__":
    main()
