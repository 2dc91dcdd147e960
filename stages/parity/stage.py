"""The stage from params to a result, and the trial of other tolerances on the figures of the last run."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.files import read_json, rounded, sha256
from stages.common.base.params import Params
from stages.parity import figures, shards
from stages.parity.advise import advise
from stages.parity.features import outliers
from stages.parity.judge import ParityResult, judge
from stages.parity.measure import Measurement, compared, measure
from stages.parity.setting import open_setting
from stages.parity.tolerances import wider_tolerance

LOOKED_AT = 64
"""Samples whose inputs are searched for outliers after a miss, at least one batch of them."""


def run(params: Params) -> ParityResult:
    """Measure, judge, and try what to advise.

    Raises:
        StageError: an input is missing, or nothing can be measured.
        ParamsError: `parity.outputs` names an output that the model does not have.
    """
    begin = time.monotonic()
    engine = shards.compared if params.parity.engine == "ray" else compared
    measurement = measure(open_setting(params.serving), params.parity, engine=engine)
    seconds = time.monotonic() - begin
    result = judge(figures.measured(measurement, params.parity.threshold), params.parity, measurement.comparison)
    advised = advise(measurement, result, params, seconds)
    result = dataclasses.replace(result, advice=advised.advice, tried=advised.outcome, plan=advised.plan)
    if result.passed:
        return result
    return dataclasses.replace(
        result,
        tolerance=wider_tolerance(result.figures, result.rules, params.parity),
        outliers=_outlying_features(measurement),
    )


def try_tolerances(params: Params, given: dict[str, float]) -> ParityResult:
    """Judge the figures of the last run by other tolerances, `given` by key of `parity`, for every output.

    Raises:
        StageError: there are no figures, or they are of other models than those in `artifacts/`, or of another way to
            serve them.
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
                f"{paths.PARITY_DETAILS.as_posix()} was measured with {key} {measured}, params.yaml has {now}. "
                "Run parity again."
            )
    outputs = {name: own.model_copy(update=given) for name, own in params.parity.outputs.items()}
    return judge(tree, params.parity.model_copy(update={**given, "outputs": outputs}))


def _outlying_features(measurement: Measurement) -> list[dict[str, Any]]:
    """In the samples that moved most, and in those served with them."""
    setting = measurement.setting
    samples = [sample.sample for _, _, sample in figures.worst_samples(measurement.comparison)]
    indices = np.concatenate(_batches(setting.indices, setting.batch, samples))
    farthest = outliers(setting.data, indices, setting.indices)
    return [dataclasses.asdict(outlier) | {"z": rounded(outlier.z)} for outlier in farthest]


def _batches(indices: np.ndarray, batch: int, samples: Sequence[int]) -> list[np.ndarray]:
    """The batches of these samples, the first of them first, filled up with others to `LOOKED_AT` samples."""
    places = (np.searchsorted(indices, samples) // batch).tolist()
    every = range(-(-len(indices) // batch))
    chosen = list(dict.fromkeys([*places, *every[:LOOKED_AT]]))[: max(1, LOOKED_AT // batch)]
    return [indices[place * batch : (place + 1) * batch] for place in chosen]
