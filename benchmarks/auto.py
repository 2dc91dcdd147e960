"""Method auto against each single method: size, speed-up over the clean float model, and parity on judge samples.

Run from the root:  python -m benchmarks.auto path/to/models --work /tmp/auto

The folder holds a folder for each model, with model.onnx and samples.npz (arrays by input name, whose first axis counts
whole feeds, or samples with --layout samples); a folder of a single model works, too. Each method runs through export,
quantize and parity. Then all models are timed in turn in one process, on one feed of the judge samples, so that
whatever disturbs the machine affects them all. The table is Markdown: speed-up over the clean float model / times
smaller.

Small models come first. Results are kept in --work and not made again, so a run may be interrupted (--minutes does so),
or split into several with --only.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from stages.common.base.command import run_script
from stages.common.data.evaldata import EvalData
from stages.common.model.sessions import open_session
from stages.quantize.auto.timing import call, faster, raced

ROOT = Path.cwd()

AUTO = "auto"

METHODS: dict[str, dict[str, Any]] = {
    "dynamic": {"method": "dynamic"},
    "dynamic, per tensor": {"method": "dynamic", "per_channel": False},
    "dynamic, per row": {"method": "dynamic", "activation_scale": "row"},
    "static": {"method": "static"},
    "weight_only": {"method": "weight_only"},
    "stored": {"method": "stored"},
    AUTO: {"method": "auto"},
}

TOLERANCES = ("abs_tol", "mean_tol", "max_nrmse", "min_sqnr_db", "min_cosine")

HEADERS = ("model", AUTO, "auto, parity", "trials", "s", *(method for method in METHODS if method != AUTO))

Row = dict[str, Any]


def main() -> None:
    """Run what is missing, and print the table of all results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where models and results are kept")
    parser.add_argument("--only", nargs="*", help="names of models; all by default")
    parser.add_argument("--layout", choices=("samples", "feeds"), default="feeds")
    parser.add_argument("--batch", type=int, default=1, help="serving.batch_size")
    parser.add_argument("--parity", nargs="*", default=[], metavar="KEY=VALUE", help="tolerances; the others are off")
    parser.add_argument("--margin", type=float, default=0.15, help="quantize.search.margin")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds to time each model")
    parser.add_argument("--minutes", type=float, default=1e6, help="after so many minutes nothing more is started")
    arguments = parser.parse_args()
    given = {key: float(value) for key, _, value in (text.partition("=") for text in arguments.parity)}
    params = {
        "export": {"source": "model.onnx", "eval_data": "samples.npz", "eval_layout": arguments.layout},
        "serving": {"batch_size": arguments.batch},
        "parity": {"advice_seconds": None, **(dict.fromkeys(TOLERANCES) | given if given else {})},
    }
    METHODS[AUTO]["search"] = {"margin": arguments.margin}
    ends = time.monotonic() + 60 * arguments.minutes
    rows = []
    files = arguments.folder.glob("**/model.onnx")
    for folder in (file.parent for file in sorted(files, key=lambda file: (file.stat().st_size, file))):
        if not (folder / "samples.npz").exists() or (arguments.only and folder.name not in arguments.only):
            continue
        bench = Bench(folder, arguments.work / folder.name, params, ends)
        bench.run(arguments.seconds)
        rows.append(bench.row())
    print(tabulate([[row.get(key, "") for key in HEADERS] for row in rows], HEADERS, tablefmt="pipe"))


@dataclass
class Bench:
    """One model and its results in --work: done.json, and the models that the methods made."""

    folder: Path
    work: Path
    params: dict[str, Any]
    ends: float

    def run(self, seconds: float) -> None:
        """Make the models that are missing, and time all of them once they are complete."""
        if not self.work.exists() and time.monotonic() < self.ends:
            self.work.mkdir(parents=True)
            for path in self.folder.iterdir():
                shutil.copy(path, self.work / path.name)
        self._do("export", lambda: {"parity": self._stage({}, "export")})
        for method in METHODS:
            if self._done() and not self._refused():
                self._do(method, partial(self._made, method))
        if all(method in self._done() for method in METHODS):
            self._do("times", lambda: self._times(seconds))

    def row(self) -> Row:
        """The row of the table: speed-up and size of each method that quantizes something, and whether it fails."""
        done = self._done()
        if error := self._refused():
            return {"model": self.folder.name, "auto, parity": error}
        auto, row = done.get(AUTO, {}), {"model": self.folder.name}
        for method in METHODS:
            made = done.get(method, {})
            if made.get("quantized") or (made and method == AUTO):
                speed = done.get("times", {}).get(method, "")
                fails = "" if made.get("parity", "").startswith("passes") or method == AUTO else " fails"
                row[method] = (
                    f"{speed if method == AUTO else speed.partition(' ')[0]} /{made.get('times smaller')}{fails}"
                )
        return {**row, "auto, parity": auto.get("parity", ""), "trials": auto.get("trials"), "s": auto.get("seconds")}

    def _done(self) -> dict[str, Row]:
        path = self.work / "done.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _refused(self) -> str:
        """Why the model cannot be quantized; the first method decides that for all."""
        done = self._done()
        said = [done.get(what, {}).get("parity", "") for what in ("export", next(iter(METHODS)))]
        return next((line for line in said if line.startswith("Error")), "")

    def _do(self, what: str, work: Callable[[], Any]) -> None:
        if what not in self._done() and time.monotonic() < self.ends:
            row = work()
            (self.work / "done.json").write_text(json.dumps({**self._done(), what: row}, indent=1))

    def _made(self, method: str) -> Row:
        started, knobs = time.monotonic(), METHODS[method]
        error = self._stage(knobs, "quantize") or self._stage(knobs, "parity")
        if error:
            return {"parity": error}
        shutil.copy(self.work / "artifacts/model.int8.onnx", self._model(method))
        quantize, parity = (json.loads((self.work / f"metrics/{name}.json").read_text()) for name in STAGES)
        diff = parity["diff"]
        return {
            "quantized": quantize["status"] == "quantized",
            "times smaller": quantize["size"]["times_smaller"],
            "parity": f"{'passes' if parity['passed'] else 'fails'}: max {diff['max_abs']}, {diff['sqnr_db']} dB",
            "trials": quantize["search"]["evals"] or "",
            "seconds": round(time.monotonic() - started),
        }

    def _model(self, method: str) -> Path:
        return self.work / f"{method.replace(', ', '_').replace(' ', '_')}.onnx"

    def _times(self, seconds: float) -> dict[str, str]:
        data, batch = EvalData(self.work / "artifacts/eval"), self.params["serving"]["batch_size"]
        feed = next(data.batches(data.indices("judge")[:batch], batch)).feed
        methods = [method for method in METHODS if self._model(method).exists()]
        paths = [self.work / "artifacts/model.onnx", *map(self._model, methods)]
        rounds = raced([lambda path=path: call(open_session(path), feed) for path in paths], seconds * len(paths))  # type: ignore[misc]
        speedups = {method: faster(rounds, number) for number, method in enumerate(methods, 1)}
        return {
            method: f"{speedup.ratio:.2f} ({speedup.low:.2f} to {speedup.high:.2f})"
            for method, speedup in speedups.items()
        }

    def _stage(self, knobs: dict[str, Any], stage: str) -> str:
        """Run a stage; returns its message if it fails."""
        (self.work / "params.yaml").write_text(yaml.safe_dump({**self.params, "quantize": knobs}))
        done = subprocess.run(
            [sys.executable, "-m", f"stages.{stage}"],
            cwd=self.work,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr.strip().splitlines()[-1][:160] if done.returncode else ""


STAGES = ("quantize", "parity")

if __name__ == "__main__":
    run_script(main)
