"""Where everything stands, relative to the repository root. `dvc.yaml` names the same paths; a test compares them."""

from pathlib import Path

PARAMS = Path("params.yaml")

ARTIFACTS = Path("artifacts")
FP32_MODEL = ARTIFACTS / "model.onnx"
INT8_MODEL = ARTIFACTS / "model.int8.onnx"
EVAL = ARTIFACTS / "eval"

METRICS = Path("metrics")
HOST = METRICS / "host.json"
EXPORT = METRICS / "export.json"
QUANTIZE = METRICS / "quantize.json"
NODES = METRICS / "nodes.csv"
PARITY = METRICS / "parity.json"
PARITY_WORST = METRICS / "parity_worst.csv"
PARITY_ERRORS = METRICS / "parity_errors.csv"
PARITY_SCATTER = METRICS / "parity_scatter.csv"
BENCH = METRICS / "bench.json"
OPERATORS = METRICS / "operators.csv"
BENCH_LATENCY = METRICS / "bench_latency.csv"
BENCH_SPEEDUP = METRICS / "bench_speedup.csv"
