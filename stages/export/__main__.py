"""Export your model to ONNX, with the evaluation data that the later stages judge it on.

Reads   what export.source names, and export.eval_data.
Writes  artifacts/model.onnx, artifacts/model.onnx.data, artifacts/eval/, metrics/export.json,
        metrics/details/export.json.
Params  export.
"""

import argparse

from stages.common.base import command, params
from stages.export import figures, screen, stage


def main(_arguments: argparse.Namespace) -> None:
    result = stage.run(params.load().export)
    figures.write(result)
    command.show(screen.render(result))


if __name__ == "__main__":
    command.run("export", __doc__, main)
