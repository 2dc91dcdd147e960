"""Run export, quantize and parity on a model of 2.4 GB, and print what time and memory each stage takes.

    python benchmarks/large_model.py [--folder FOLDER] [--method METHOD]

The model is nine square layers of 8192 with seeded random weights, in external data as other tools write it. It needs
about 8 GB of disk in FOLDER, by default a new folder for temporary files, removed at the end. Linux only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, save
from tabulate import tabulate

from stages.common.base.command import run_script

ROOT = Path(__file__).resolve().parent.parent
LAYERS, WIDTH, SAMPLES = 9, 8192, 64

PARAMS = """\
export: {{source: {folder}/source/large.onnx, eval_data: {folder}/source/samples.npz}}
quantize: {{method: {method}}}
parity: {{abs_tol: null, mean_tol: null}}
"""


def build(folder: Path) -> int:
    """Write the model and its samples into `folder`; returns the bytes of its weights."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    with (folder / "weights.bin").open("wb") as file:
        for layer in range(LAYERS):
            offset = file.tell()
            values = rng.standard_normal((WIDTH, WIDTH), np.float32) * np.float32((2 / WIDTH) ** 0.5)
            file.write(values.tobytes())
            weight = TensorProto(name=f"W{layer}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights.bin"), ("offset", offset), ("length", file.tell() - offset)):
                weight.external_data.add(key=key, value=str(value))
            weights.append(weight)
            nodes.append(helper.make_node("MatMul", [f"h{layer}", f"W{layer}"], [f"p{layer}"], f"layer{layer}"))
            nodes.append(helper.make_node("Relu", [f"p{layer}"], [f"h{layer + 1}"], f"relu{layer}"))
        size = file.tell()
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH])] for name in ("h0", f"h{LAYERS}")]
    graph = helper.make_graph(nodes, "large", *ends, weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "large.onnx")
    np.savez(folder / "samples.npz", h0=rng.standard_normal((SAMPLES, WIDTH), np.float32))
    return size


def measure(stage: str, folder: Path) -> tuple[float, float, float]:
    """Run a stage in `folder`; returns seconds, and peak GB of memory: resident, and the part not mapped from files."""
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment)
    anonymous = [0]
    watcher = threading.Thread(target=_watch, args=(child.pid, anonymous), daemon=True)
    watcher.start()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"stages.{stage} failed with exit code {os.waitstatus_to_exitcode(status)}.")
    return seconds, usage.ru_maxrss * 1024 / 1e9, anonymous[0] * 1024 / 1e9


def _watch(pid: int, peak: list[int]) -> None:
    status = Path(f"/proc/{pid}/status")
    while True:
        try:
            lines = status.read_text(encoding="ascii").splitlines()
        except OSError:
            return
        sizes = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
        peak[0] = max(peak[0], *sizes, 0)
        time.sleep(0.02)


def main() -> None:
    """Build, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="an empty folder that is kept")
    parser.add_argument("--method", default="dynamic", help="quantize.method")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        size = build(folder / "source") / 1e9
        (folder / "params.yaml").write_text(PARAMS.format(folder=folder, method=arguments.method), encoding="utf-8")
        rows = [(stage, *measure(stage, folder)) for stage in ("export", "quantize", "parity")]
    print(f"\nWeights: {size:.2f} GB; quantize.method {arguments.method}.")
    header = ("stage", "seconds", "peak GB", "times the weights", "not mapped, GB")
    table = [(stage, seconds, peak, peak / size, private) for stage, seconds, peak, private in rows]
    print(tabulate(table, header, tablefmt="simple", floatfmt=("", ".0f", ".2f", ".2f", ".2f")))


if __name__ == "__main__":
    run_script(main)
