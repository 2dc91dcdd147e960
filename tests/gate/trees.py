"""Small metrics of the other stages, as the gate reads them."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from stages.common.base import paths

SHA = {"fp32": "f" * 64, "int8": "8" * 64}
TREES: dict[str, dict[str, Any]] = {
    "host": {"machine_id": "abc", "cpu": {"model": "A CPU", "isa": "avx512_vnni", "cores": 2}, "onnxruntime": "1.32.0"},
    "export_details": {"drift": {}},
    "quantize": {"status": "quantized", "size": {"fp32_mb": 4.0, "int8_mb": 1.0}},
    "parity": {"passed": True, "judged": {"samples": 500}},
    "parity_details": {
        "rules": [],
        "judged": {
            "samples": 500,
            "batch": 1,
            "threads": 1,
            "isa": "avx512_vnni",
            "onnxruntime": "1.32.0",
            "sha256": SHA,
        },
        "advice": [],
    },
    "bench": {"speedup": {"ratio": 2.0, "low95": 1.9, "high95": 2.1, "verdict": "faster"}},
    "bench_details": {
        "measured": {"machine_id": "abc", "threads": 1, "batch": 1, "sha256": SHA},
        "operators": {"finding": "MatMul takes 90% of the INT8 model's time", "remedy": None},
        "call": {"finding": ""},
        "noise": {"finding": ""},
        "without_int8": [],
    },
}
FILES = {
    "host": paths.HOST,
    "export_details": paths.EXPORT_DETAILS,
    "quantize": paths.QUANTIZE,
    "parity": paths.PARITY,
    "parity_details": paths.PARITY_DETAILS,
    "bench": paths.BENCH,
    "bench_details": paths.BENCH_DETAILS,
}
MISS: dict[str, Any] = {
    "parity__passed": False,
    "parity_details__rules": [
        {
            "name": "abs_tol", "value": 0.419, "limit": 0.04, "margin": -0.379, "outcome": "failed",
            "output": "probabilities", "message": "", "sample": 3,
        }
    ],
    "parity_details__advice": [{"command": "dvc exp run -S quantize.reduce_range=true", "effect": "0.01"}],
}  # fmt: skip
UNLABELLED: dict[str, Any] = {
    "name": "max_task_drop", "value": None, "limit": 0.01, "margin": None, "outcome": "failed",
    "message": "the evaluation data has no labels",
}  # fmt: skip
OTHER_SHAPES: dict[str, Any] = {
    "name": "shape", "value": 15, "limit": 0, "margin": -15, "outcome": "failed", "output": "det_boxes",
    "message": "shapes differ for 15 samples, e.g. [2, 4] and [1, 4]",
}  # fmt: skip
NOTHING: dict[str, Any] = {"quantize__status": "nothing_to_quantize", "quantize__size__int8_mb": 4.0}


def speedup(low: float, high: float, verdict: str) -> dict[str, Any]:
    return {"bench__speedup": {"ratio": (low + high) / 2, "low95": low, "high95": high, "verdict": verdict}}


def write(folder: Path, **changes: Any) -> None:
    """Write the metrics, with changes such as `quantize__size__int8_mb=9`; a change to None removes the key."""
    trees = deepcopy(TREES)
    for place, value in changes.items():
        name, *keys, last = place.split("__")
        node = trees[name]
        for key in keys:
            node = node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value
    for name, path in FILES.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(trees[name]))
