"""Quantize the fp32 model to INT8, and report the outcome for every node with a weight.

Reads   artifacts/model.onnx, artifacts/model.onnx.data, artifacts/eval/; for method plan, quantize.plan.
Writes  artifacts/model.int8.onnx, artifacts/model.int8.onnx.data, metrics/quantize.json; in metrics/details/:
        nodes.csv, quantize.json, and for method auto frontier.csv, plan.json, sensitivity.csv.
Params  quantize; parity and serving for method auto.

If nothing can be quantized, the output is the fp32 model, `status` is nothing_to_quantize, and the exit code is 0.
"""

import argparse

from stages.common.base import command, params
from stages.quantize import figures, screen, stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="print the error that each choice adds at each node, so that you can set quantize.nodes; write nothing",
    )


def main(arguments: argparse.Namespace) -> None:
    if arguments.sensitivity:
        command.show(screen.ranking(stage.sensitivity(params.load())))
        return
    result = stage.run(params.load())
    figures.write(result)
    command.show(screen.render(result))


if __name__ == "__main__":
    command.run("quantize", __doc__, main, add_arguments)
