"""Is it smaller and faster, on this machine? Time both models, measure their memory, and say which to deploy.

Reads   artifacts/model.onnx, artifacts/model.int8.onnx (each with its .data), artifacts/eval/, metrics/host.json,
        metrics/quantize.json, metrics/parity.json.
Writes  metrics/details/bench_latency.csv, metrics/details/bench_speedup.csv, metrics/details/operators.csv, metrics/bench.json.
Params  bench, serving, gate.max_size_ratio.
"""

import argparse

from stages.bench.selfcheck import self_check
from stages.bench.stage import bench
from stages.common.base import command, params


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--self-check",
        action="store_true",
        help="compare the fp32 model with itself 20 times, write nothing, and exit 1 if the 95 %% interval of the "
        "speed-up covers 1 in fewer than 18 of them",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the stage, or the self-check."""
    if arguments.self_check:
        return self_check(params.load())
    bench(params.load())
    return 0


if __name__ == "__main__":
    command.run("bench", __doc__, main, _add_arguments)
