"""What is judged and how it is served: both models, the samples, and the batch."""

from dataclasses import dataclass

import numpy as np

from stages.common.base import paths
from stages.common.base.errors import StageError
from stages.common.base.params import Serving
from stages.common.data.evaldata import EvalData
from stages.common.data.feeding import check_fit, fixed_batch
from stages.common.model import model_file
from stages.common.model.sessions import open_session
from stages.parity.serve import Model


@dataclass(frozen=True)
class Setting:
    """Both models loaded, and the judged samples.

    Attributes:
        indices: of the judged samples, ascending, in the order in which they are served.
        batch: samples in one call; that of the model where it is fixed, 1 where each sample is a whole feed, and not
            more than there are samples.
        wanted: `serving.batch_size`, where it applies.
        free: whether the model can be served in another batch.
        left_out: samples that do not fill a fixed batch.
        threads: of a session.
    """

    fp32: Model
    int8: Model
    data: EvalData
    indices: np.ndarray
    batch: int
    wanted: int
    free: bool
    left_out: int
    threads: int


def opened(serving: Serving) -> Setting:
    """Load what export and quantize left.

    Raises:
        StageError: a model is missing or does not load, or the evaluation data do not fit it, or are too few.
    """
    for path, stage in ((paths.FP32_MODEL, "export"), (paths.INT8_MODEL, "quantize")):
        model_file.read(path, stage)
    data = EvalData()
    fp32, int8 = (
        Model(open_session(path, serving.threads), path.as_posix()) for path in (paths.FP32_MODEL, paths.INT8_MODEL)
    )
    check_fit(fp32.session, data.inputs, data.layout)
    _check_pair(fp32, int8)
    indices = data.indices("judge")
    if not len(indices):
        raise StageError("artifacts/eval has no sample to judge. Give export evaluation data.")
    fixed = fixed_batch(fp32.session, data.layout)
    if fixed and len(indices) < fixed:
        raise StageError(
            f"The model takes batches of {fixed}, and artifacts/eval has {len(indices)} samples to judge. "
            "Give export more evaluation data."
        )
    feeds = data.layout == "feeds"
    wanted = 1 if feeds else serving.batch_size
    kept = indices[: len(indices) // fixed * fixed] if fixed else indices
    return Setting(
        fp32,
        int8,
        data,
        kept,
        batch=fixed or min(wanted, len(indices)),
        wanted=wanted,
        free=fixed is None and not feeds,
        left_out=len(indices) - len(kept),
        threads=serving.threads,
    )


def _check_pair(fp32: Model, int8: Model) -> None:
    for kind in ("input", "output"):
        before, after = (_types(model, kind) for model in (fp32, int8))
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                raise StageError(
                    f"The {kind} '{name}' is {before.get(name, 'missing')} in {fp32.name} and "
                    f"{after.get(name, 'missing')} in {int8.name}: they are no pair. Run quantize again."
                )


def _types(model: Model, kind: str) -> dict[str, str]:
    listed = model.session.get_inputs() if kind == "input" else model.session.get_outputs()
    return {each.name: each.type for each in listed}
