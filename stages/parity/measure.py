"""What parity measures on the judged samples: INT8 and a constant model against fp32, and the batch effect."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from tqdm import tqdm

from stages.common.base.errors import StageError
from stages.common.base.params import Parity
from stages.common.compare.comparison import Choose, Comparison, MismatchError, OutputPair, compare
from stages.common.decisions import Decider, Outputs, choose
from stages.common.judging.serve import calls, paired
from stages.parity.movement import BatchEffect, PaddingEffect, measure_batch_effect, measure_padding
from stages.parity.setting import Setting

MEDIAN_SAMPLES = 256
MEDIAN_BYTES = 64 << 20
"""Most samples, and most bytes of fp32 outputs, that are kept for the median."""


@dataclass(frozen=True)
class Measurement:
    """Measurements without a verdict: INT8 against fp32, and how far answers move with the batch and with padding.

    `median` compares a model that always answers fp32's median with fp32, on up to `MEDIAN_SAMPLES` samples; None if
    the shapes of the outputs vary.
    """

    setting: Setting
    comparison: Comparison
    effect: BatchEffect
    padding: PaddingEffect
    median: Comparison | None


@dataclass
class Kept:
    """fp32 outputs of some judged samples, drawn uniformly with a fixed seed."""

    judged: np.ndarray
    drawn: np.ndarray | None = None
    indices: list[np.ndarray] = field(default_factory=list)
    outputs: list[Outputs] = field(default_factory=list)

    def draw(self, reference: Outputs) -> np.ndarray:
        """The samples to keep; how many depends on the size of their outputs."""
        if self.drawn is None:
            size = sum(array[:1].nbytes for array in reference.values())
            count = max(1, min(MEDIAN_SAMPLES, MEDIAN_BYTES // max(1, size)))
            self.drawn = np.random.default_rng(0).permutation(self.judged)[:count]
        return self.drawn

    def keep(self, pair: OutputPair) -> None:
        """Copy the drawn samples of the pair."""
        rows = np.isin(pair.indices, self.draw(pair.reference))
        if rows.any():
            self.indices.append(pair.indices[rows])
            self.outputs.append({name: array[rows] for name, array in pair.reference.items()})


Engine = Callable[[Setting, Kept, Choose], Comparison]
"""Compares both models on the judged samples, and keeps fp32 outputs on the way; `Choose` finds the decision."""


def compared(setting: Setting, kept: Kept, decider: Choose) -> Comparison:
    """Serve the judged samples to both models and compare the answers, in this process."""
    return compare(_served(setting, kept), setting.data.labels, decider)


def measure(setting: Setting, params: Parity, *, movement: bool = True, engine: Engine = compared) -> Measurement:
    """Compare both models on the judged samples with `engine`; with `movement`, also measure what moves the answers.

    Raises:
        StageError: a model does not run, fp32 gives nothing finite, or the two have different outputs.
        ParamsError: `parity.padding` names an input that the model does not have.
    """
    decider = partial(choose, threshold=params.threshold, classifier=params.max_flip_rate is not None)
    kept = Kept(setting.indices)
    try:
        comparison = engine(setting, kept, decider)
    except MismatchError as error:
        raise StageError(
            f"The outputs of {setting.int8.name} differ from those of {setting.fp32.name}: {error}. Run quantize again."
        ) from error
    for output in comparison.floats:
        if output.values and output.nonfinite_fp32 == output.values:
            raise StageError(
                f"The output '{output.name}' of {setting.fp32.name} is NaN or infinite for every sample. "
                "Fix the model or the evaluation data, and run export again."
            )
    return Measurement(
        setting,
        comparison,
        measure_batch_effect(setting) if movement else BatchEffect(reason="it was not measured"),
        measure_padding(setting, params.padding) if movement else PaddingEffect(reason="it was not measured"),
        _median_comparison(kept, setting, comparison.decider),
    )


def _served(setting: Setting, kept: Kept) -> Iterator[OutputPair]:
    stream = calls(setting.data, setting.indices, setting.batch)
    with tqdm(total=len(setting.indices), unit="sample", desc="parity", disable=None, leave=False) as progress:
        for pair in paired(setting.fp32, setting.int8, stream):
            kept.keep(pair)
            yield pair
            progress.update(len(pair.indices))


def _median_comparison(kept: Kept, setting: Setting, decider: Decider) -> Comparison | None:
    if len({tuple(array.shape[1:] for array in outputs.values()) for outputs in kept.outputs}) != 1:
        return None
    indices = np.concatenate(kept.indices)
    reference = {name: np.concatenate([part[name] for part in kept.outputs]) for name in kept.outputs[0]}
    candidate = {name: np.broadcast_to(_typical(array), array.shape) for name, array in reference.items()}
    comparison = Comparison(decider)
    comparison.update(indices, reference, candidate, setting.data.labels(indices))
    return comparison


def _typical(rows: np.ndarray) -> np.ndarray:
    """The median of floats [n, ...] at each position, of other values the most frequent row: [...]."""
    if rows.dtype.kind == "f":
        return np.asarray(np.median(np.nan_to_num(rows.astype(np.float64)), axis=0)).astype(rows.dtype)
    frequent = Counter(tuple(row) for row in rows.reshape(len(rows), -1).tolist()).most_common(1)[0][0]
    return np.array(frequent, dtype=rows.dtype).reshape(rows.shape[1:])
