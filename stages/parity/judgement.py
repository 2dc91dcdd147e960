"""One judgement: both models over the judged samples, the rules that apply, and what else must be said."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from stages.common.base.errors import StageError
from stages.common.base.params import Parity
from stages.common.compare import Comparison, Decider, MismatchError, Outputs, Pair, choose, compare
from stages.parity.batch_effect import BatchEffect, batch_effect
from stages.parity.serve import paired
from stages.parity.setting import Setting
from stages.parity.verdict import Rule, judge


@dataclass(frozen=True)
class Judgement:
    """What was measured and decided."""

    setting: Setting
    comparison: Comparison
    effect: BatchEffect
    rules: list[Rule]

    @property
    def passed(self) -> bool:
        return all(rule.passed for rule in self.rules)

    @property
    def missed(self) -> list[Rule]:
        return [rule for rule in self.rules if not rule.passed]


def judgement(setting: Setting, params: Parity) -> Judgement:
    """Compare both models over the judged samples.

    Raises:
        StageError: a model does not run, gives nothing finite in fp32, or the two are no pair.
        ParamsError: `parity.outputs` names an output that the model has not.
    """

    def decider(outputs: Outputs, labels: np.ndarray | None) -> Decider:
        classifier = params.max_flip_rate is not None
        return choose(outputs, labels, threshold=params.threshold, classifier=classifier)

    try:
        comparison = compare(_progressing(setting), setting.data.labels, decider)
    except MismatchError as error:
        raise StageError(
            f"{setting.int8.name} does not answer as {setting.fp32.name} does: {error}. Run quantize again."
        ) from error
    for output in comparison.floats:
        if output.finite.values and output.finite.reference == output.finite.values:
            raise StageError(
                f"The output '{output.name}' of {setting.fp32.name} is NaN or infinite for every sample. "
                "Mend the model or the evaluation data, and run export again."
            )
    return Judgement(setting, comparison, batch_effect(setting), judge(comparison, params))


def _progressing(setting: Setting) -> Iterator[Pair]:
    batches = setting.data.batches(setting.indices, setting.batch)
    with tqdm(total=len(setting.indices), unit="sample", desc="parity", disable=None, leave=False) as progress:
        for pair in paired(setting.fp32, setting.int8, batches):
            yield pair
            progress.update(len(pair.indices))
