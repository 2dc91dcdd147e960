"""Advice: quantize and judge variants until the time is up, and recommend those that pass."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tqdm import tqdm

from stages.common.base import paths
from stages.common.base.params import Params
from stages.common.judging.rules import largest_strain
from stages.common.rule import failures, figure_text
from stages.common.timing.summary import EQUIVALENT, FEWEST_LAUNCHES, Interval
from stages.parity.advice import Advice, experiment
from stages.parity.candidates import auto, formats, kept_float, row_scale, searches, static, stored
from stages.parity.judge import ParityResult
from stages.parity.measure import Measurement
from stages.parity.notes import batch_effect_is_noted
from stages.parity.setting import Setting
from stages.parity.trials import (
    LARGEST_MODEL,
    OUT_OF_TIME,
    Overrides,
    TriedVariant,
    Workspace,
    model_size,
    open_workspace,
    timed,
)

ENOUGH = 3
"""Once this many variants have passed, no more are tried."""

SLOW_SECONDS = 2.0
"""Time limit to find out whether a model that passed is slower than fp32."""

HARDLY_SMALLER = 0.9
"""A model that passes, but is larger than this share of fp32, gained too little."""

CLOSE = "close to the speed of fp32, so another search may choose fp32"
"""Added to the advice of auto if its model may be slower than fp32: auto does not publish slower models."""

ANOTHER = "a new search may choose a different model that is about as fast, and must pass parity again"
"""Added to the advice of auto if several models are about as fast, with the range of their sizes."""

UNKNOWN = "of unclear speed after a few launches"
"""Replaces the speed if the ends of its interval differ by more than a factor of `WIDE`."""

WIDE = 2.0


@dataclass(frozen=True)
class Advised:
    """The result of the trials.

    Attributes:
        advice: commands for variants that pass, best first.
        outcome: sentences on why variants were tried after a pass, and on what was tried without success; may be empty.
        untried: the settings of each variant that there was no time for.
    """

    advice: list[Advice]
    outcome: str
    untried: list[str] = field(default_factory=list)


def advise(measurement: Measurement, result: ParityResult, params: Params, seconds: float) -> Advised:
    """Try other params of quantize: after a miss, a batch effect or a slow model, or if convolutions stayed float.

    Args:
        measurement: the measurement of the current models.
        result: its verdict.
        params: all params.
        seconds: how long the measurement took; the trials have that much less time.
    """
    on_batch = depends_on_batch(result, params)
    budget = params.parity.advice_seconds
    if budget is None or model_size(paths.FP32_MODEL) > LARGEST_MODEL:
        cause = "parity.advice_seconds is null" if budget is None else "the model is too large to quantize again"
        return Advised([], "" if result.passed else f"No variant was tried: {cause}.")
    deadline = time.monotonic() + budget - seconds
    calls = math.ceil(len(measurement.setting.indices) / measurement.setting.batch)
    slow = _slow(measurement.setting, deadline, seconds / calls) if result.passed else ""
    trials: list[TriedVariant] = []
    if result.passed:
        ratio = model_size(paths.INT8_MODEL) / model_size(paths.FP32_MODEL)
        no_gain = bool(slow) or (ratio > HARDLY_SMALLER and bool(kept_float()))
        variants = _after_a_pass(params, trials, on_batch=on_batch, no_gain=no_gain)
    else:
        variants = formats(params, depends_on_batch=on_batch, strain=largest_strain(result.rules))
    # Identical files ran once, but a variant is compared with fp32.
    judging = 2 * seconds if measurement.setting.same_model else seconds
    _try(trials, measurement.setting, variants, params, deadline, judging=judging, movement=on_batch)
    useful = [trial for trial in trials if trial.speedup is not None and trial.speedup.ratio >= EQUIVALENT]
    if result.passed:  # after a pass, row scales are only advised if they end the batch effect
        useful = [trial for trial in useful if not (_per_row(trial) and _moves(trial, params))]
    useful.sort(
        key=lambda trial: (
            _rank(trial, on_batch),
            -round(trial.speedup.ratio, 1) if trial.speedup else 0,
            trial.size_ratio,
        )
    )
    commands = [(experiment(trial.overrides.items()), trial) for trial in useful]
    advice = [Advice(command, _effect(trial, on_batch)) for command, trial in commands if command is not None]
    outcome = "" if advice else _nothing_passed(trials, passed=result.passed)
    untried = [_settings(trial) for trial in trials if trial.problem == OUT_OF_TIME]
    return Advised(advice, " ".join(part for part in (slow, outcome) if part), untried)


def depends_on_batch(result: ParityResult, params: Params) -> bool:
    """Whether the batch moves the answers beyond a tolerance, or may have caused a miss."""
    if batch_effect_is_noted(result.figures, params.parity):
        return True
    failed = [rule.name for rule in failures(result.rules)]
    return "max_batch_effect" in failed or bool(failed and result.figures["judged"]["batch"] > 1)


def _slow(setting: Setting, deadline: float, call_seconds: float) -> str:
    """A sentence if a few launches show that INT8 is slower than fp32, else empty.

    `call_seconds` is what one call of each model takes together; a launch makes at least two.
    """
    left = deadline - time.monotonic()
    if left <= 2 * FEWEST_LAUNCHES * call_seconds or setting.same_model:
        return ""
    speedup = timed(setting, paths.INT8_MODEL, min(SLOW_SECONDS, left))
    if speedup.high >= EQUIVALENT:
        return ""
    pace = _speed(speedup)
    if pace == UNKNOWN:  # how slow it is, but not whether it is
        pace = f"at most {speedup.high:.2g} times as fast as fp32"
    return f"INT8 is slower here: {pace}."


def _per_row(trial: TriedVariant) -> bool:
    return "quantize.activation_scale" in trial.overrides


def _rank(trial: TriedVariant, on_batch: bool) -> int:
    """The order of advice: row scales if answers depend on the batch, then auto, then everything else."""
    if on_batch and _per_row(trial):
        return 0
    return 1 if searches(trial.overrides) else 2


def _moves(trial: TriedVariant, params: Params) -> bool:
    return trial.result is not None and batch_effect_is_noted(trial.result.figures, params.parity)


def _after_a_pass(params: Params, trials: list[TriedVariant], *, on_batch: bool, no_gain: bool) -> Iterator[Overrides]:
    """Variants that may improve on a pass; auto only if INT8 gains nothing and simpler variants failed."""
    if on_batch:
        yield from row_scale(params)
    yield from static(params)
    if no_gain:
        yield from stored(params)
        if any(trial.result for trial in trials) and not any(trial.passed for trial in trials):
            yield from auto(params)


def _try(
    trials: list[TriedVariant],
    setting: Setting,
    variants: Iterator[Overrides],
    params: Params,
    deadline: float,
    *,
    judging: float,
    movement: bool,
) -> None:
    """Append a trial for each variant, until enough have passed, or no time is left to quantize and judge another."""
    workspace: Workspace | None = None
    with ExitStack() as stack:
        for overrides in variants:
            left = deadline - time.monotonic()
            enough = sum(trial.passed for trial in trials) >= ENOUGH and not searches(overrides)
            if enough:
                continue
            if left <= judging:
                trials.append(TriedVariant(overrides, problem=OUT_OF_TIME))
                continue
            if workspace is None:
                workspace = stack.enter_context(open_workspace(setting, params, movement=movement))
                progress = stack.enter_context(
                    tqdm(desc="parity: trying variants", unit=" variants", disable=None, leave=False)
                )
            trials.append(workspace.run(overrides, left - judging))
            progress.set_postfix(passed=sum(trial.passed for trial in trials), seconds_left=max(0, int(left)))
            progress.update()


def _effect(trial: TriedVariant, on_batch: bool) -> str:
    assert trial.result is not None
    assert trial.speedup is not None
    figures = trial.result.figures
    largest = "" if trial.largest is None else f" (largest difference {trial.largest:.2g})"
    moved = figures["batch_effect"]["max_abs"]
    steady = ""
    if on_batch and moved is not None:
        steady = f"; the batch moves the answers by {moved:.2g}" if moved else "; the batch does not move the answers"
    close = f"; {CLOSE}" if searches(trial.overrides) and trial.speedup.low < 1 else ""
    return (
        f"passes on all {figures['judged']['samples']} judged samples{largest}{steady}; "
        f"{1 / trial.size_ratio:.2g} times smaller, {_speed(trial.speedup)}{close}{another(trial.about_as_fast)}"
    )


def another(sizes: Sequence[float]) -> str:
    """A clause on the models that another search may choose, by their shares of the size of fp32; empty for one."""
    if len(sizes) < 2:
        return ""
    return f"; {ANOTHER}: {_span(1 / max(sizes), 1 / min(sizes))} times smaller"


def _span(low: float, high: float) -> str:
    """Two figures as a range; as one if they round to the same."""
    return " to ".join(dict.fromkeys((f"{low:.2g}", f"{high:.2g}")))


def _nothing_passed(trials: list[TriedVariant], *, passed: bool) -> str:
    late = sum(trial.problem == OUT_OF_TIME for trial in trials)
    if passed and not trials:
        return ""
    if late == len(trials):
        names = f" ({', '.join(_settings(trial) for trial in trials)})" if passed else ""
        end = "" if passed else ", or ship fp32"
        return f"No variant{names} was ready within parity.advice_seconds: raise it{end}."
    listed = [f"{_settings(trial)} ({_why_not(trial)})" for trial in trials[:4]]
    more = f", and {len(trials) - 4} more" if len(trials) > 4 else ""
    remedies = (["raise parity.advice_seconds to try the rest"] if late else []) + ([] if passed else ["ship fp32"])
    end = f" {', or '.join(remedies).capitalize()}." if remedies else ""
    return f"No variant both passes and gains anything: {', '.join(listed)}{more}.{end}"


def _settings(trial: TriedVariant) -> str:
    return " ".join(f"{key.removeprefix('quantize.')}={value}" for key, value in trial.overrides.items())


def _speed(speedup: Interval) -> str:
    """The ends of the interval, as its middle says little after few launches."""
    if speedup.verdict == "equivalent":
        return "as fast as fp32"
    if speedup.high > WIDE * speedup.low:
        return UNKNOWN
    return f"{_span(speedup.low, speedup.high)} times as fast as fp32"


def _why_not(trial: TriedVariant) -> str:
    if trial.result is None:
        return trial.problem if len(trial.problem) < 40 else "quantize refuses it"
    failed = next(iter(failures(trial.result.rules)), None)
    if failed is None:
        if trial.speedup is None:
            return "passes, but is not smaller"
        if trial.speedup.ratio < EQUIVALENT:
            return f"passes, but is {_speed(trial.speedup)}"
        return "passes, but still depends on the batch"
    return f"{failed.name} {figure_text(failed.value)}".rstrip()
