"""Is what parity advises true? Every advice over a folder of models is carried out and held against what it said.

Run from the root:  python -m benchmarks.advice FOLDER [--methods dynamic static weight_only] [--models NAME ...]

FOLDER holds one folder per model: model.onnx, and samples.npz with an array per input whose axis 0 counts feeds. Each
model is exported, quantized and judged in a temporary folder; each command under "Try" is then applied to params.yaml
by DVC's own parser, and the model is quantized and judged again. A row per advice; exit 1 if one did not do what it
said, to 10 %.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.utils.hydra import apply_overrides
from tabulate import tabulate

ROOT = Path.cwd()
HEADER = ("model", "method", "advice", "said", "largest difference", "times smaller", "")


def main() -> int:
    """Try all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the models")
    parser.add_argument("--methods", nargs="+", default=["dynamic", "static", "weight_only"], help="quantize.method")
    parser.add_argument("--models", nargs="+", help="names of folders; all by default")
    arguments = parser.parse_args()
    names = arguments.models or sorted(path.parent.name for path in arguments.folder.glob("*/samples.npz"))
    rows: list[tuple[str, ...]] = []
    for name in names:
        for method in arguments.methods:
            with tempfile.TemporaryDirectory() as place:
                rows += [(name, method, *row) for row in judged(arguments.folder / name, method, Path(place))]
                print(f"{name} {method}", *(row[2:] for row in rows if row[:2] == (name, method)), flush=True)
    print(tabulate(rows, HEADER, tablefmt="simple", disable_numparse=True))
    return int(any(row[-1] == "WRONG" for row in rows))


def judged(model: Path, method: str, place: Path) -> Iterator[tuple[str, ...]]:
    """One row per advice, or the sentence that parity ends with instead."""
    shutil.copytree(model, place / "models" / "m")
    source, data = "models/m/model.onnx", "models/m/samples.npz"
    params: dict[str, Any] = {
        "export": {"source": source, "eval_data": data, "eval_layout": "feeds"},
        "quantize": {"method": method},
    }
    if not all(run(stage, place, params) for stage in ("export", "quantize", "parity")):
        return
    details = json.loads((place / "metrics/details/parity.json").read_text(encoding="utf-8"))
    if details["tried"]:
        yield "", details["tried"], "", "", ""
    for advice in details["advice"]:
        after = carried_out(advice["command"], place, params)
        yield advice["command"], advice["effect"], *held(advice["effect"], after)


def held(effect: str, after: dict[str, Any] | None) -> tuple[str, str, str]:
    """What became of the figures, and whether they are within 10 % of what was said."""
    if after is None:
        return "", "", "WRONG"
    largest, smaller = after["diff"]["max_abs"], after["times_smaller"]
    said = [re.search(pattern, effect) for pattern in (r"largest difference ([\d.e+-]+)", r"([\d.e+-]+) times smaller")]
    same = all(
        match is not None and abs(float(match[1]) - value) <= 0.1 * max(abs(value), 1e-12)
        for match, value in zip(said, (largest, smaller), strict=True)
    )
    return f"{largest:.3g}", f"{smaller:.3g}", "ok" if same and after["passed"] else "WRONG"


def carried_out(command: str, place: Path, params: dict[str, Any]) -> dict[str, Any] | None:
    """The headlines after the command; None where a stage fails."""
    file = place / "params.yaml"
    file.write_text(json.dumps(params), encoding="utf-8")
    apply_overrides(str(file), shlex.split(command)[4::2])
    if not all(run(stage, place) for stage in ("quantize", "parity")):
        return None
    headlines: dict[str, Any] = json.loads((place / "metrics/parity.json").read_text(encoding="utf-8"))
    sizes = json.loads((place / "metrics/quantize.json").read_text(encoding="utf-8"))["size"]
    return {**headlines, "times_smaller": sizes["times_smaller"]}


def run(stage: str, place: Path, params: dict[str, Any] | None = None) -> bool:
    """Run a stage in the folder; whether it did its job."""
    if params is not None:
        (place / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
