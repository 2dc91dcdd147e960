"""Small repositories with metrics like those that the stages write."""

import argparse
import contextlib
import io
import json
import re
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

Tree = dict[str, dict[str, Any]]

METRICS: Tree = {
    "host": {"machine_id": "a" * 12, "cpu": {"model": "CPU A", "isa": "avx2", "cores": 2}, "onnxruntime": "1.32.0"},
    "export": {"drift": {"max_abs": 1e-6, "flips": 0}, "eval": {"samples": 400}},
    "quantize": {
        "status": "quantized",
        "size": {"fp32_mb": 4.0, "int8_mb": 1.0, "times_smaller": 4.0},
        "nodes": {"quantizable": 3, "quantized": 2, "kept_float": 1},
        "saturation": {"share": 0.1},
    },
    "parity": {
        "passed": True,
        "diff": {"max_abs": 0.02, "mean_abs": 1e-4, "nrmse": 0.01, "sqnr_db": 40.0, "min_cosine": 0.999},
        "decisions": {"flips": 0, "flip_rate_high95": 0.0099},
        "task": {"fp32": 0.97, "int8": 0.97},
        "batch_effect": {"max_abs": 0.01},
        "judged": {"samples": 300},
    },
    "bench": {
        "speedup": {"ratio": 2.0, "low95": 1.9, "high95": 2.1, "verdict": "faster"},
        "latency": {"fp32_p50_ms": 1.0, "int8_p50_ms": 0.5},
        "memory": {"fp32_mb": 8.0, "int8_mb": 3.0},
        "load": {"fp32_ms": 10.0, "int8_ms": 4.0},
    },
    "gate": {"open": True, "deploy": "int8"},
}


def rule(name: str, value: Any, limit: Any, margin: float | None, outcome: str, **more: Any) -> dict[str, Any]:
    tree = {"name": name, "value": value, "limit": limit, "margin": margin, "outcome": outcome}
    return {**tree, "output": "", "message": "", "sample": None, **more}


DETAILS: Tree = {
    "export": {"notes": [], "null_reasons": {}},
    "quantize": {
        "steps": ["Folded 1 constant."],
        "method": "dynamic",
        "warnings": [],
        "notes": [],
        "null_reasons": {},
    },
    "parity": {
        "rules": [
            rule("abs_tol", 0.02, 0.04, 0.02, "passed", output="prob|s", sample=7),
            rule("mean_tol", 1e-4, 0.01, 0.0099, "passed", output="prob|s"),
            rule("max_flip_rate", None, None, None, "off"),
        ],
        "judged": {"samples": 300, "batch": 1, "threads": 1, "isa": "avx2", "onnxruntime": "1.32.0"},
        "task": {"metric": "accuracy"},
        "advice": [],
        "notes": ["In batches of 64 the answers move by up to 0.17."],
        "null_reasons": {},
    },
    "bench": {
        "batches": [
            {
                "batch": 1,
                "fp32_p50_ms": 1.0,
                "int8_p50_ms": 0.5,
                "speedup": 2.0,
                "low95": 1.9,
                "high95": 2.1,
                "verdict": "faster",
            },
            {"batch": 8, "not_measured": "The model has a fixed batch."},
        ],
        "measured": {
            "machine_id": "a" * 12,
            "threads": 1,
            "batch": 1,
            "sha256": {"fp32": "f" * 64, "int8": "1" * 64},
        },
        "notes": [],
        "null_reasons": {"memory.int8_mb": "this system has no /proc", "noise.throttled_s": "not Linux"},
    },
    "gate": {
        "reason": "Parity passed, and INT8 is faster.",
        "advice": None,
        "rules": [
            rule("max_size_ratio", 0.25, 0.9, 0.65, "passed"),
            rule("min_speedup", 1.9, 0.97, 0.93, "passed"),
        ],
        "host": {"machine_id": "a" * 12},
    },
}

NODE_COLUMNS = (
    "node,op_type,graph,weight,weight_shape,weight_dtype,weight_bytes,quantized,how,weight_sqnr_db,saturating_share"
    ",reason,becomes\n"
)
NODES = f"""{NODE_COLUMNS}/enc/MatMul,MatMul,,w0,64x64,float32,16384,true,QInt8 per channel,47.1,0.1,,/enc/MatMul_quant
/dec/MatMul,MatMul,,w1,64x64,float32,16384,true,QInt8 per channel,40.5,0.1,,/dec/MatMul_quant
conv|<b>,Conv,,w2,3x3,float32,36,false,,,,no fast INT8 kernel,conv|<b>
"""

WORST = "sample,output,position,fp32,int8,abs_error,share_of_range\n7,prob|s,3,0.5,0.52,0.02,0.02\n"

FRONTIER = """candidate,origin,nodes_quantized,predicted_us,speedup,speedup_low95,speedup_high95,mb,strain,passes,chosen
1,frontier,3,40.0,,,,1.0,1.89,false,false
2,frontier,1,60.0,1.5,1.4,1.6,2.5,0.22,true,false
3,add back,2,50.0,2.0,1.9,2.1,1.4,0.45,true,true
"""

PARAMS = "parity: {abs_tol: 0.04}\nquantize: {weight_type: QInt8}\n"


def changed(tree: Tree, **values: Any) -> Tree:
    """A copy with values under keys such as `parity__diff__max_abs`."""
    tree = deepcopy(tree)
    for key, value in values.items():
        *path, last = key.split("__")
        node: dict[str, Any] = tree
        for part in path:
            node = node[part]
        node[last] = value
    return tree


class Repository:
    """A git repository with metrics, evidence and params."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "-q", "-b", "main")
        self.write()
        self.commit()

    def write(self, metrics: Tree = METRICS, details: Tree = DETAILS, params: str = PARAMS) -> None:
        folder = self.root / "metrics/details"
        folder.mkdir(parents=True, exist_ok=True)
        for stage, tree in metrics.items():
            (self.root / "metrics" / f"{stage}.json").write_text(json.dumps(tree))
        for stage, tree in details.items():
            (folder / f"{stage}.json").write_text(json.dumps(tree))
        (folder / "nodes.csv").write_text(NODES)
        (folder / "parity_worst.csv").write_text(WORST)
        (self.root / "params.yaml").write_text(params)

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=self.root, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "x", "--allow-empty")

    def report(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """What `python -m stages.report` prints in the root, and its exit code, without starting a process."""
        # Imported here because the stub pipelines import this module, and only need its figures.
        from stages.common.base import command
        from stages.report import __main__ as report

        parser = argparse.ArgumentParser()
        parser.set_defaults(debug=False)
        report.add_arguments(parser)
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.root), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = command.outcome(report.main, parser.parse_args(arguments))
        return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def row(text: str, label: str) -> list[str]:
    """The cells of the first table row that has a cell `label`, from that cell on."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if "|" in line]
    cells = next(cells for cells in rows if label in cells)
    return cells[cells.index(label) :]
