"""The stage: read the fp32 model, quantize it, put the result in place, say what happened."""

from stages.common.base import files, params, paths
from stages.common.data.evaldata import EvalData
from stages.common.model import model_file, sessions
from stages.quantize import pipeline, report


def run() -> None:
    """Write the quantized model, metrics/details/nodes.csv and metrics/quantize.json, and print what was found.

    Raises:
        StageError: the model must not or cannot be quantized.
    """
    knobs = params.load().quantize
    fp32 = model_file.read(paths.FP32_MODEL, made_by="export")
    result = pipeline.quantize(fp32, EvalData(), knobs, paths.FP32_MODEL.as_posix())
    with model_file.staged(result.model or fp32, paths.INT8_MODEL) as written:
        sessions.open_session(written)
    fp32_mb, int8_mb = model_file.size_mb(paths.FP32_MODEL), model_file.size_mb(paths.INT8_MODEL)
    files.write_csv(paths.NODES, report.NODES_HEADER, report.node_rows(result))
    files.write_json(paths.QUANTIZE, report.metrics(result, fp32_mb, int8_mb))
    print(report.screen(result, fp32_mb, int8_mb))
