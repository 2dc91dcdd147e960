"""All paths, relative to the repository root. `dvc.yaml` has the same ones; a test compares them."""

from pathlib import Path

PARAMS = Path("params.yaml")

ARTIFACTS = Path("artifacts")
FP32_MODEL = ARTIFACTS / "model.onnx"
INT8_MODEL = ARTIFACTS / "model.int8.onnx"
EVAL = ARTIFACTS / "eval"

# Headlines: what `dvc metrics show`, `dvc metrics diff` and `dvc exp show` print.
METRICS = Path("metrics")
HOST = METRICS / "host.json"
EXPORT = METRICS / "export.json"
QUANTIZE = METRICS / "quantize.json"
PARITY = METRICS / "parity.json"
BENCH = METRICS / "bench.json"
GATE = METRICS / "gate.json"

# Evidence: tracked by DVC, but not listed as metrics.
DETAILS = METRICS / "details"
SEARCH_TARGET = DETAILS / "search_target.json"
EXPORT_DETAILS = DETAILS / "export.json"
QUANTIZE_DETAILS = DETAILS / "quantize.json"
NODES = DETAILS / "nodes.csv"
PLAN = DETAILS / "plan.json"
SENSITIVITY = DETAILS / "sensitivity.csv"
FRONTIER = DETAILS / "frontier.csv"
PARITY_DETAILS = DETAILS / "parity.json"
PARITY_WORST = DETAILS / "parity_worst.csv"
PARITY_ERRORS = DETAILS / "parity_errors.csv"
PARITY_SCATTER = DETAILS / "parity_scatter.csv"
BENCH_DETAILS = DETAILS / "bench.json"
BENCH_LAUNCHES = DETAILS / "bench_launches.csv"
BENCH_LATENCY = DETAILS / "bench_latency.csv"
BENCH_SPEEDUP = DETAILS / "bench_speedup.csv"
OPERATORS = DETAILS / "operators.csv"
GATE_DETAILS = DETAILS / "gate.json"


def external_data(model: Path) -> Path:
    """The file for the weights that do not fit into the model file: `<model>.onnx.data`."""
    return model.with_name(model.name + ".data")


def files_of(model: Path) -> list[Path]:
    """The files of a model: the model file, and the external data file if it exists."""
    return [path for path in (model, external_data(model)) if path == model or path.exists()]
