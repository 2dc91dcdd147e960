"""Is parity's advice true? Follow all of it over a folder of models, and compare the effect with what was promised.

Run from the root:  python -m benchmarks.advice FOLDER TABLE [--methods METHOD ...] [--models NAME ...] [--speed]

FOLDER holds one folder per model: model.onnx, and samples.npz with an array per input whose axis 0 counts feeds. Each
model is exported, quantized and judged in a temporary folder; each command under "Try" is then applied to params.yaml
by DVC's own parser, and the model is quantized and judged again. TABLE is a CSV file with a row per piece of advice;
models and methods that it holds already are not run again. Exits with 1 if advice misses its promised effect by more
than 10 %, or if two methods recommend each other. --speed also checks the promised speed with bench, for quiet
machines.
"""

import argparse
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dvc.utils.hydra import apply_overrides
from tabulate import tabulate

from stages.common.base.command import run_script
from stages.parity.advise import ANOTHER, CLOSE, UNKNOWN

ROOT = Path(__file__).resolve().parents[1]
METHODS = ["dynamic", "static", "weight_only"]
HEADER = ("model", "method", "advice", "said", "largest difference", "times smaller", "speed-up", "outcome")
SAID = {
    "largest difference": r"largest difference ([\d.e+-]+)",
    "times smaller": r"([\d.e+-]+) times smaller",
    "speed-up": r"(?:([\d.e+-]+)(?: to ([\d.e+-]+))? times )?as fast as fp32",
}

Row = dict[str, str]


def main() -> int:
    """Follow the advice that the table lacks, and print the whole table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the models")
    parser.add_argument("table", type=Path, help="CSV file for the outcomes")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="quantize.method")
    parser.add_argument("--models", nargs="+", help="names of folders; all by default")
    parser.add_argument("--speed", action="store_true", help="check the speed as well")
    arguments = parser.parse_args()
    names = arguments.models or sorted(path.parent.name for path in arguments.folder.glob("*/samples.npz"))
    done = {(row["model"], row["method"]) for row in read(arguments.table)}
    for name in names:
        for method in arguments.methods:
            if (name, method) not in done:
                with tempfile.TemporaryDirectory() as place:
                    rows = list(judged(arguments.folder / name, method, Path(place), speed=arguments.speed))
                append(arguments.table, [{"model": name, "method": method} | row for row in rows])
    rows = read(arguments.table)
    shown = [[row[key] for key in HEADER] for row in rows if row["said"]]
    print(tabulate(shown, HEADER, tablefmt="simple", disable_numparse=True))
    circles = sorted(in_circles(rows))
    print(*(f"{model}: {one} and {other} recommend each other." for model, one, other in circles), sep="\n")
    return int(bool(circles) or any(row["outcome"].startswith("WRONG") for row in rows))


def read(table: Path) -> list[Row]:
    """The rows of the table; none if there is no such file."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(table: Path, rows: list[Row]) -> None:
    """Add rows to the table."""
    new = not table.exists()
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def in_circles(rows: list[Row]) -> Iterator[tuple[str, str, str]]:
    """Yield (model, method, method) if the advice for each method names the other."""
    points = {
        (row["model"], row["method"], match[1])
        for row in rows
        if (match := re.search(r"quantize\.method=(\w+)", row.get("advice", "")))
    }
    yield from ((model, one, other) for model, one, other in points if one < other and (model, other, one) in points)


def judged(model: Path, method: str, place: Path, *, speed: bool) -> Iterator[Row]:
    """A row per piece of advice; without any, one row with the sentence that parity or the failed stage ended with."""
    shutil.copytree(model, place / "models" / "m")
    source, data = "models/m/model.onnx", "models/m/samples.npz"
    params: dict[str, Any] = {
        "export": {"source": source, "eval_data": data, "eval_layout": "feeds"},
        "quantize": {"method": method},
    }
    for stage in ("export", "quantize", "parity"):
        if problem := run(stage, place, params):
            yield {"outcome": problem}
            return
    details = json.loads((place / "metrics/details/parity.json").read_text(encoding="utf-8"))
    if not details["advice"]:
        passed = json.loads((place / "metrics/parity.json").read_text(encoding="utf-8"))["passed"]
        yield {"said": details["tried"], "outcome": "passes" if passed else "misses"}
    for advice in details["advice"]:
        after = carried_out(advice["command"], place, params, speed=speed)
        yield {"advice": advice["command"], "said": advice["effect"], **held(advice["effect"], after)}


def held(effect: str, after: Mapping[str, float | None] | None) -> Row:
    """The figures after the advice, and whether they are within 10 % of what was said.

    If it was said that fp32 or another model may be chosen, its figures are right, too.
    """
    if after is None:
        return {"outcome": "WRONG"}
    shown = {key: "" if value is None else f"{value:.3g}" for key, value in after.items()}
    if CLOSE in effect and after["times smaller"] == 1 and after["largest difference"] == 0:
        return {**shown, "outcome": "ok"}
    said = {key: value for key, value in after.items() if key != "speed-up" or UNKNOWN not in effect}
    wrong = [key for key, value in said.items() if not _within(re.search(SAID[key], effect), value)]
    if other := re.search(rf"{ANOTHER}: ([\d.e+-]+)(?: to ([\d.e+-]+))? times smaller", effect):
        wrong = [] if _within(other, after["times smaller"]) else ["times smaller"]
    return {**shown, "outcome": f"WRONG: {', '.join(wrong)}" if wrong else "ok"}


def _within(said: re.Match[str] | None, value: float | None) -> bool:
    """Whether a value is within the range that was said, to 10 %; without a value, nothing may have been said."""
    if said is None or value is None:
        return said is None and value is None
    ends = [float(end) for end in said.groups() if end] or [1.0]
    return min(ends) - 0.1 * abs(value) <= value <= max(ends) + 0.1 * abs(value)


def carried_out(command: str, place: Path, params: dict[str, Any], *, speed: bool) -> Mapping[str, float | None] | None:
    """The figures after the command, by the names of `SAID`; None if a stage fails or parity does not pass."""
    (place / "params.yaml").write_text(json.dumps(params | {"parity": {"advice_seconds": None}}), encoding="utf-8")
    apply_overrides(str(place / "params.yaml"), shlex.split(command)[4::2])
    if any(run(stage, place) for stage in ("quantize", "parity")):
        return None
    parity, quantize = (
        json.loads((place / "metrics" / f"{stage}.json").read_text(encoding="utf-8"))
        for stage in ("parity", "quantize")
    )
    if not parity["passed"]:
        return None
    figures = {"largest difference": parity["diff"]["max_abs"], "times smaller": quantize["size"]["times_smaller"]}
    return figures | ({"speed-up": benched(place)} if speed else {})


def benched(place: Path) -> float:
    """The speed-up that bench measures."""
    screen = python(place, "-m", "stages.bench", "--pair", "artifacts/model.onnx", "artifacts/model.int8.onnx").stdout
    return float(re.search(r"over artifacts/model.onnx: ([\d.]+)", screen)[1])  # type: ignore[index]


def run(stage: str, place: Path, params: dict[str, Any] | None = None) -> str:
    """Run a stage in the folder; returns the sentence that it failed with, or nothing."""
    if params is not None:
        (place / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    done = python(place, "-m", f"stages.{stage}")
    return done.stderr.strip() if done.returncode else ""


def python(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in the folder, with this project's modules."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    run_script(main)
