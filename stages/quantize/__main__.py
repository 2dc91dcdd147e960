"""Quantize the fp32 model to INT8, and say what became of every node with a weight.

Reads   artifacts/model.onnx, artifacts/model.onnx.data, artifacts/eval/.
Writes  artifacts/model.int8.onnx, artifacts/model.int8.onnx.data, metrics/details/nodes.csv,
        metrics/details/quantize.json, metrics/quantize.json.
Params  quantize; parity and serving for method auto.

Where nothing can be quantized, the model written is the fp32 one, `status` is nothing_to_quantize, and the exit code 0.
"""

import argparse

from stages.common.base import command, params
from stages.quantize import figures, screen, stage


def main(_arguments: argparse.Namespace) -> None:
    """Run the stage."""
    result = stage.run(params.load())
    figures.write(result)
    command.show(screen.render(result))


if __name__ == "__main__":
    command.run("quantize", __doc__, main)
