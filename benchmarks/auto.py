"""Method auto against each single method: size, speed-up over the clean float model, and parity on judge samples.

Run from the root:  python -m benchmarks.auto path/to/models --work /tmp/auto

The folder holds a folder for each model, with model.onnx and samples.npz (arrays by input name, whose first axis counts
whole feeds, or samples with --layout samples); a folder of a single model works, too. Each method runs through export,
quantize and parity. Then all models are timed in turn in one process, so that whatever disturbs the machine meets them
all, on one feed of the judge samples. The table is Markdown. What is done is kept in --work and not done again, so that
a run may be interrupted, or be made of several with --only.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from stages.common.data.evaldata import EvalData
from stages.common.model.sessions import open_session
from stages.quantize.auto.timing import call, in_turn, ratio

ROOT = Path.cwd()

SINGLE: dict[str, dict[str, Any]] = {
    "dynamic": {"method": "dynamic"},
    "dynamic, per tensor": {"method": "dynamic", "per_channel": False},
    "dynamic, per row": {"method": "dynamic", "activation_scale": "row"},
    "static": {"method": "static"},
    "weight_only": {"method": "weight_only"},
    "stored": {"method": "stored"},
}

AUTO: dict[str, dict[str, Any]] = {
    "auto": {"method": "auto"},
    "auto, size": {"method": "auto", "search": {"objective": "size"}},
}

TOLERANCES = ("abs_tol", "mean_tol", "max_nrmse", "min_sqnr_db", "min_cosine")

Row = dict[str, Any]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where models and results are kept")
    parser.add_argument("--only", nargs="*", help="names of models; all by default")
    parser.add_argument("--layout", choices=("samples", "feeds"), default="feeds")
    parser.add_argument("--batch", type=int, default=1, help="serving.batch_size")
    parser.add_argument("--parity", nargs="*", default=[], metavar="KEY=VALUE", help="tolerances; the others are off")
    parser.add_argument("--seconds", type=float, default=1.0, help="timed of each model")
    arguments = parser.parse_args()
    given = {key: float(value) for key, _, value in (text.partition("=") for text in arguments.parity)}
    params = {
        "export": {"source": "model.onnx", "eval_data": "samples.npz", "eval_layout": arguments.layout},
        "serving": {"batch_size": arguments.batch},
        "parity": {**dict.fromkeys(TOLERANCES), **given} if given else {},
    }
    rows = []
    for folder in sorted({path.parent for path in arguments.folder.glob("**/model.onnx")}):
        if not (folder / "samples.npz").exists() or (arguments.only and folder.name not in arguments.only):
            continue
        work = arguments.work / folder.name
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "rows.json").exists():
            (work / "rows.json").write_text(json.dumps(_model(folder, work, params, arguments.seconds)))
        rows += json.loads((work / "rows.json").read_text())
    headers = ("model", "method", "speed-up over float", "times smaller", "parity", "trials")
    print(tabulate([[row.get(key, "") for key in headers] for row in rows], headers, tablefmt="pipe"))


def _model(folder: Path, work: Path, params: dict[str, Any], seconds: float) -> list[Row]:
    """Each method on one model; a method that only repeats the float model is left out."""
    for path in folder.iterdir():
        shutil.copy(path, work / path.name)
    (work / "params.yaml").write_text(yaml.safe_dump(params))
    if error := _run(work, "export"):
        return [{"model": folder.name, "parity": error}]
    rows: list[Row] = []
    models: list[Path] = []
    for method, knobs in (SINGLE | AUTO).items():
        (work / "params.yaml").write_text(yaml.safe_dump({**params, "quantize": knobs}))
        error = _run(work, "quantize") or _run(work, "parity")
        figures = {} if error else _figures(work)
        if not figures.pop("quantized", True) and method in SINGLE:
            continue
        rows.append({"model": folder.name, "method": method, "parity": error, **figures})
        if not error:
            rows[-1]["path"] = len(models)
            models.append(work / f"{len(models)}.onnx")
            shutil.copy(work / "artifacts/model.int8.onnx", models[-1])
    data = EvalData(work / "artifacts/eval")
    batch = params["serving"]["batch_size"]
    feed = next(data.batches(data.indices("judge")[:batch], batch)).feed
    calls = [call(open_session(path), feed) for path in (work / "artifacts/model.onnx", *models)]
    rounds = in_turn(calls, seconds * len(calls))
    for row in rows:
        if "path" in row:
            timed = ratio(rounds[:, 0], rounds[:, row["path"] + 1])
            row["speed-up over float"] = f"{timed.ratio:.2f} ({timed.low:.2f} to {timed.high:.2f})"
    return rows


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
    return done.stderr.strip().splitlines()[-1][:160] if done.returncode else ""


def _figures(folder: Path) -> Row:
    quantize, parity = (json.loads((folder / f"metrics/{name}.json").read_text()) for name in ("quantize", "parity"))
    diff = parity["diff"]
    answers = f"{'passes' if parity['passed'] else 'fails'}: max {diff['max_abs']}, {diff['sqnr_db']} dB"
    return {
        "quantized": quantize["status"] == "quantized",
        "times smaller": quantize["size"]["times_smaller"],
        "parity": answers,
        "trials": quantize["search"]["evals"] or "",
    }


if __name__ == "__main__":
    main()
