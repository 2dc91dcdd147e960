"""Quantize the fp32 model to INT8.

Reads artifacts/model.onnx (with artifacts/model.onnx.data) and artifacts/eval.
Writes artifacts/model.int8.onnx (with artifacts/model.int8.onnx.data), metrics/nodes.csv, metrics/quantize.json.
Params: the section quantize.
"""

import argparse

from stages.common import command, files, model_file, params, paths
from stages.common.evaldata import EvalData
from stages.quantize import pipeline, report


def main(_arguments: argparse.Namespace) -> None:
    """Read, quantize, write."""
    knobs = params.load().quantize
    fp32 = model_file.read(paths.FP32_MODEL, made_by="export")
    result = pipeline.quantize(fp32, EvalData(), knobs, paths.FP32_MODEL.as_posix())
    model_file.write(result.model or fp32, paths.INT8_MODEL)
    fp32_mb, int8_mb = model_file.size_mb(paths.FP32_MODEL), model_file.size_mb(paths.INT8_MODEL)
    files.write_csv(paths.NODES, report.NODES_HEADER, report.node_rows(result))
    files.write_json(paths.QUANTIZE, report.metrics(result, fp32_mb, int8_mb))
    print(report.screen(result, fp32_mb, int8_mb))


command.run("quantize", __doc__, main)
