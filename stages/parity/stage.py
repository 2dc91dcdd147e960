"""The stage from params to a result, and other tolerances tried on the figures of the last run."""

import time
from dataclasses import replace

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.files import read_json, sha256
from stages.common.base.params import Params, Parity
from stages.common.judging.rules import evaluate_rules, samples_needed
from stages.parity import shards
from stages.parity.advise import advise
from stages.parity.features import outliers
from stages.parity.judge import ParityResult, judge, wider_tolerance, worst_samples
from stages.parity.measure import compared, measure
from stages.parity.notes import notes, vacuous_outputs
from stages.parity.setting import open_setting


def run(params: Params) -> ParityResult:
    """Measure, judge, explain the verdict, and try alternatives.

    Raises:
        StageError: an input is missing, or nothing can be measured.
        ParamsError: `parity.outputs` does not fit the model, see `evaluate_rules`.
    """
    begin = time.monotonic()
    engine = shards.compared if params.parity.engine == "ray" else compared
    measurement = measure(open_setting(params.serving), params.parity, engine=engine)
    seconds = time.monotonic() - begin
    verdict = judge(measurement, params.parity)
    advised = advise(measurement, verdict, params, seconds)
    explained = _explained(verdict, params.parity)
    result = replace(explained, advice=advised.advice, tried=advised.outcome, untried=advised.untried)
    if result.passed:
        return result
    moved = [sample.sample for _, _, sample in worst_samples(measurement.comparison)]
    return replace(
        result,
        tolerance=wider_tolerance(result, params.parity),
        outliers=outliers(measurement.setting, moved),
    )


def try_tolerances(params: Params, given: dict[str, float]) -> ParityResult:
    """Judge the figures of the last run by other tolerances: `given`, by key of `parity`, for every float output.

    Raises:
        StageError: the figures are missing, or were measured on other models or with other serving params.
        ParamsError: see `evaluate_rules`.
    """
    read_json(paths.PARITY, "parity")
    tree = read_json(paths.PARITY_DETAILS, "parity")
    judged = tree["judged"]
    for model, key in ((paths.FP32_MODEL, "fp32"), (paths.INT8_MODEL, "int8")):
        if model.exists() and judged["sha256"][key] != sha256(model):
            raise StageError(
                f"{paths.PARITY_DETAILS.as_posix()} was measured on another {model.as_posix()}. Run parity again."
            )
    for key, measured, now in (
        ("serving.batch_size", judged["batch_size"], params.serving.batch_size),
        ("serving.threads", judged["threads"], params.serving.threads),
        ("parity.threshold", judged["wanted_threshold"], params.parity.threshold),
    ):
        if measured != now:
            raise StageError(
                f"{paths.PARITY_DETAILS.as_posix()} was measured with {key} {measured}, but params.yaml has {now}. "
                "Run parity again."
            )
    floats = {name for name, output in tree["outputs"].items() if output["is_float"]}
    outputs = {
        name: own.model_copy(update=given) if name in floats else own for name, own in params.parity.outputs.items()
    }
    tried = params.parity.model_copy(update={**given, "outputs": outputs})
    return _explained(ParityResult(tree, evaluate_rules(tree, tried)), tried)


def _explained(verdict: ParityResult, params: Parity) -> ParityResult:
    vacuous = vacuous_outputs(verdict.figures, params)
    return replace(
        verdict,
        vacuous=vacuous,
        needed=samples_needed(verdict.figures, params),
        notes=notes(verdict.figures, params, vacuous),
    )
