"""Build or read the model, clean it, run it on its evaluation data, and publish both."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.common.base import files, paths
from stages.common.base.params import Export
from stages.common.data import evaldata, feeding
from stages.common.graph.cleaning import Step
from stages.common.model import model_file, sessions
from stages.export import checks, fp32, source
from stages.export.clean import clean_model, reference_answers
from stages.export.drift import Drift, measure_drift
from stages.export.source import Exported


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    Attributes:
        exported: the model as it was converted, before cleaning.
        data: the published evaluation data.
        opsets: the opset versions of the published model, by domain.
        steps: the cleaning steps, done or undone.
        drift: between the source and its export, on the judge samples.
        notes: sentences on what was cast or left out, and on files that DVC does not track.
    """

    exported: Exported
    data: evaldata.EvalData
    opsets: dict[str, int]
    steps: Sequence[Step]
    drift: Drift
    notes: Sequence[str]


def run(params: Export) -> ExportResult:
    """Write `artifacts/model.onnx`, its external data file and `artifacts/eval`.

    Raises:
        StageError: the source cannot be built or read, does not run in fp32, or does not fit its evaluation data.
    """
    with source.opened(params) as exported, files.replacing(paths.EVAL) as folder:
        float_model = exported.converted.model
        checks.check_counts(exported.converted.inputs, exported.labels)
        evaldata.write(folder, exported.converted.inputs, exported.labels, params.eval_layout, params.seed)
        data = evaldata.EvalData(folder)
        session = sessions.open_session(float_model, name=exported.origin)
        feeding.check_fit(session, data.inputs, data.layout)
        checks.check_samples(session, data)
        checks.check_outputs(session, exported.origin)
        expected = reference_answers(session, data, exported.origin)
        del session  # memory holds one session of a large model at a time
        model, steps = clean_model(float_model, expected) if params.clean else (float_model, [])
        with model_file.staged(model, paths.FP32_MODEL) as written:
            session = sessions.open_session(written, name=exported.origin)
            answers = fp32.answers(session, model, data, exported.origin)
            drift = measure_drift(answers, exported.converted.answers, data.indices("judge"), data.labels)
            if exported.converted.exact:
                checks.check_conversion(drift, exported.origin)
    opsets = {domain or "ai.onnx": version for domain, version in model.opset_imports.items()}
    notes = (*exported.converted.notes, *source.untracked(params))
    return ExportResult(exported, evaldata.EvalData(), opsets, steps, drift, notes)
