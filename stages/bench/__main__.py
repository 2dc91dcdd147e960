"""Is it smaller and faster, on this machine? Times both models, measures their memory, and says which to deploy.

Reads artifacts/model.onnx, artifacts/model.int8.onnx, artifacts/eval, metrics/host.json, metrics/quantize.json and
metrics/parity.json. Writes metrics/bench.json, metrics/bench_latency.csv, metrics/bench_speedup.csv and
metrics/operators.csv. Params: bench, serving, gate.max_size_ratio.
"""

import argparse

from stages.bench import stage
from stages.common import command, params


def main(_arguments: argparse.Namespace) -> int:
    """Run the stage."""
    return stage.bench(params.load())


if __name__ == "__main__":
    command.run("bench", __doc__, main)
