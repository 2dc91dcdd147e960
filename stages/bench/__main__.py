"""Measure how fast INT8 is on this machine: time both models, and measure their memory and load time.

Reads   artifacts/model.onnx, artifacts/model.int8.onnx (each with its .data), artifacts/eval/, metrics/host.json.
Writes  metrics/details/bench_launches.csv, metrics/details/bench_latency.csv, metrics/details/bench_speedup.csv,
        metrics/details/operators.csv, metrics/details/bench.json, metrics/bench.json.
Params  bench, serving.
"""

import argparse
from pathlib import Path

from stages.bench import figures, screen, stage
from stages.bench.control import self_check
from stages.bench.pair import compare_pair
from stages.common.base import command, params
from stages.common.timing.launches import ModelPair

EXIT_CODES = f"{command.EXIT_CODES} A failed --self-check exits with 1."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--self-check",
        action="store_true",
        help="compare the fp32 model with itself 20 times, write nothing, and exit with 1 if fewer than 18 of the "
        "95 %% intervals of the speed-up cover 1",
    )
    parser.add_argument(
        "--pair",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="time any two ONNX files that take the same inputs, write nothing, and print the speed-up of B over A",
    )


def main(arguments: argparse.Namespace) -> int:
    if arguments.self_check:
        return self_check(params.load())
    if arguments.pair:
        command.show(compare_pair(ModelPair(*arguments.pair), params.load()))
        return 0
    result = stage.run(params.load())
    figures.write(result)
    command.show(screen.render(result))
    return 0


if __name__ == "__main__":
    command.run("bench", __doc__, main, add_arguments, EXIT_CODES)
