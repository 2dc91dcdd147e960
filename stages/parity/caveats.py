"""What the verdict alone does not say: where it would not hold, and where its measure is the wrong one."""

from collections.abc import Iterator

from stages.common.base.params import Parity
from stages.common.compare import OutputComparison
from stages.parity.judgement import Judgement
from stages.parity.verdict import tolerance_of

BOUNDED = 10.0
"""An absolute tolerance made for probabilities says little of values larger than this."""

FAIR_SQNR_DB = 20.0
"""The noise is a tenth of the signal: what is proposed where nothing is known of the output."""

CALIBRATION_SHIFT = 0.02
"""A change of the expected calibration error that is worth a word."""


def caveats(found: Judgement, params: Parity) -> list[str]:
    """Sentences: first what was judged at all."""
    return [
        *_samples(found),
        *_batch(found, params),
        *_decisions(found, params),
        *_unbounded(found, params),
        *_exact(found),
    ]


def _batch(found: Judgement, params: Parity) -> Iterator[str]:
    effect = found.effect
    for output in found.comparison.floats:
        limit = tolerance_of(output.name, params).abs_tol
        figures = [each.get(output.name) for each in (effect.serving, effect.large, effect.large_error)]
        serving, large, error = (0.0 if each is None else each for each in figures)
        if limit is None or max(large, serving) <= limit:
            continue
        if serving > limit:
            yield (
                f"'{output.name}' of the same sample moves by up to {serving:.2g} between batches of 1 and of "
                f"{found.setting.batch}, beyond abs_tol {limit:g}: the answer depends on what is served beside it"
            )
        else:
            yield (
                f"in batches of {effect.large_batch} '{output.name}' of the same samples moves by up to {large:.2g}, "
                f"and is {error:.2g} from fp32, beyond abs_tol {limit:g}: this verdict "
                f"holds for batches of {found.setting.batch} only (try -S serving.batch_size={effect.large_batch})"
            )


def _decisions(found: Judgement, params: Parity) -> Iterator[str]:
    flips, decider = found.comparison.flips, found.comparison.decider
    if params.threshold is not None and decider.threshold is None:
        yield (
            f"parity.threshold is set, but no output has one or two scores a row; what decides is {decider.description}"
        )
    if flips.confident:
        yield f"{flips.confident} of {flips.flips} flips are confident ones: fp32 was sure by a margin of 0.1 or more"
    before, after = (each.ece for each in found.comparison.calibration)
    if before is not None and after is not None and abs(after - before) > CALIBRATION_SHIFT:
        yield f"the calibration error of the probabilities goes from {before:.3f} to {after:.3f}"


def _unbounded(found: Judgement, params: Parity) -> Iterator[str]:
    for output in found.comparison.floats:
        if not unbounded(output, params):
            continue
        reached = max(abs(output.signal.low), abs(output.signal.high))
        yield (
            f"'{output.name}' reaches {reached:.4g}, where the default abs_tol {params.abs_tol:g}, made for "
            f"probabilities, says little: set parity.outputs.{output.name}, or "
            f"-S parity.abs_tol=null -S parity.mean_tol=null -S parity.min_sqnr_db={FAIR_SQNR_DB:g}"
        )


def unbounded(output: OutputComparison, params: Parity) -> bool:
    """Whether an output is judged by the default absolute tolerance, though its values are no probabilities."""
    if params.abs_tol != Parity().abs_tol or output.name in params.outputs or not output.error.count:
        return False
    return max(abs(output.signal.low), abs(output.signal.high)) > BOUNDED


def _exact(found: Judgement) -> Iterator[str]:
    label = found.comparison.decider.label
    for output in found.comparison.outputs.values():
        if not output.is_float and output.name != label and output.equal < output.values and found.comparison.floats:
            yield f"{output.values - output.equal} of {output.values} values of '{output.name}' changed"


def _samples(found: Judgement) -> Iterator[str]:
    setting = found.setting
    if setting.batch != setting.wanted:
        why = "there are no more samples" if setting.free else "the model prescribes it"
        yield f"served in batches of {setting.batch}, not of serving.batch_size {setting.wanted}: {why}"
    if setting.left_out:
        yield f"{setting.left_out} samples did not fill the model's fixed batch of {setting.batch} and were left out"
