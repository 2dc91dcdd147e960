"""One judgement: both models over the judged samples, and the rules that apply."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from stages.common import model_file, paths
from stages.common.compare import Comparison, Decider, MismatchError, Outputs, choose, compare
from stages.common.errors import StageError
from stages.common.evaldata import Batch, EvalData
from stages.common.feeding import check_fit, fixed_batch
from stages.common.params import Params, Parity
from stages.common.sessions import open_session
from stages.parity.batch_effect import BatchEffect, batch_effect
from stages.parity.serve import Model, paired
from stages.parity.verdict import Rule, judge


@dataclass(frozen=True)
class Judgement:
    """What was measured and decided; `left_out` samples did not fill the model's fixed batch."""

    comparison: Comparison
    rules: list[Rule]
    effect: BatchEffect
    batch: int
    left_out: int

    @property
    def passed(self) -> bool:
        return all(rule.passed for rule in self.rules)


def judgement(params: Params) -> Judgement:
    """Compare `artifacts/model.onnx` and `artifacts/model.int8.onnx` over the judge samples.

    Raises:
        StageError: a model is missing or does not run, there are no samples, or the models are not a pair.
    """
    for path, stage in ((paths.FP32_MODEL, "export"), (paths.INT8_MODEL, "quantize")):
        model_file.read(path, stage)
    data = EvalData()
    fp32, int8 = (
        Model(open_session(path, params.serving.threads), path.as_posix())
        for path in (paths.FP32_MODEL, paths.INT8_MODEL)
    )
    indices = data.indices("judge")
    if not len(indices):
        raise StageError("artifacts/eval has no sample to judge. Give export evaluation data.")
    check_fit(fp32.session, data.inputs, data.layout)
    fixed = fixed_batch(fp32.session, data.layout)
    batch = fixed or (params.serving.batch_size if data.layout == "samples" else 1)
    if fixed and len(indices) < fixed:
        raise StageError(
            f"The model takes batches of {fixed}, and artifacts/eval has {len(indices)} samples to judge. "
            "Give export more evaluation data."
        )
    # A fixed batch is fed whole: the tail that does not fill one is left out.
    batches = data.batches(indices[: len(indices) // batch * batch] if fixed else indices, batch)
    with tqdm(batches, total=len(indices) // batch, unit="batch", desc="parity", disable=None, leave=False) as progress:
        comparison = _compared(fp32, int8, progress, data, params.parity)
    free = fixed is None and data.layout == "samples"
    effect = batch_effect(fp32, int8, data, indices, batch, free=free)
    rules = judge(comparison, params.parity)
    return Judgement(comparison, rules, effect, batch, len(indices) - comparison.samples)


def _compared(fp32: Model, int8: Model, batches: Iterable[Batch], data: EvalData, params: Parity) -> Comparison:
    def decider(outputs: Outputs, labels: np.ndarray | None) -> Decider:
        classifier = params.max_flip_rate is not None
        return choose(outputs, labels, threshold=params.threshold, classifier=classifier)

    try:
        return compare(paired(fp32, int8, batches), data.labels, decider)
    except MismatchError as error:
        raise StageError(f"{int8.name} does not answer as {fp32.name} does: {error}. Run quantize again.") from error
