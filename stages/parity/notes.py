"""Notes on what the verdict proves and where it would not hold, from the figures alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.common.base.params import Parity
from stages.common.compare.decided import upper_bound
from stages.common.compare.task import UNFIT
from stages.common.judging.rules import evaluate_rules, samples_needed, tolerance_of
from stages.common.rule import failures

ECE_SHIFT = 0.02
"""A larger change of the expected calibration error gets a note."""

PROVING_NRMSE = 0.1
PROVING_FLIP_RATE = 0.01
"""Limits to suggest if the rules prove nothing."""

LEAST_NRMSE = 0.01
"""If the median's NRMSE is below this, it is as close as an INT8 model can be: no limit separates the two."""

SMALL = 0.1
"""A part of an output whose standard deviation is below this share of the largest hardly counts in the NRMSE."""

Tree = Mapping[str, Any]


def notes(details: Tree, params: Parity, vacuous: Sequence[str]) -> list[str]:
    """Sentences on the figures, the most important first.

    Args:
        details: the content of `metrics/details/parity.json`.
        params: the tolerances.
        vacuous: the result of `vacuous_outputs`.
    """
    return [
        *_vacuous(details, vacuous),
        *_uneven(details, params),
        *_too_few(details, params),
        *_serving(details),
        *_batch(details, params),
        *_mixing(details, params),
        *_padding(details, params),
        *_decisions(details, params),
        *_labels(details),
        *_logarithms(details),
    ]


def vacuous_outputs(details: Tree, params: Parity) -> list[str]:
    """The outputs for which passing proves nothing.

    They are empty for every sample, or their rules also pass for a model that always answers fp32's median.
    """
    median, empty = details["median"], empty_outputs(details)
    if median is None:
        return empty
    rules = evaluate_rules(median, params)
    failed = {rule.output for rule in failures(rules)}
    if not failed <= set(median["outputs"]):
        return empty  # a rule on decisions or on the task fails for a model that answers the median
    equal = {rule.output for rule in rules if rule.name == "equal"}
    judged = [
        name for name, output in median["outputs"].items() if output["values"] and (output["is_float"] or name in equal)
    ]
    return [*empty, *(name for name in judged if name not in failed)]


def empty_outputs(details: Tree) -> list[str]:
    """The outputs without a value in any sample, in both models."""
    outputs = details["outputs"].items()
    return [name for name, output in outputs if not (output["values"] or output["shape_mismatches"])]


def _vacuous(details: Tree, names: Sequence[str]) -> Iterator[str]:
    empty = set(empty_outputs(details))
    if empty:
        yield (
            f"Nothing of {_listed([name for name in names if name in empty])} was compared, as both models give no "
            "values for any judged sample; if there can be some, give export samples for which there are."
        )
    remedies: dict[str, list[str]] = {}
    for name in names:
        if name not in empty:
            remedies.setdefault(_proving_rule(details["median"], name), []).append(name)
    for remedy, outputs in remedies.items():
        yield (
            f"A model that always answers the median would pass too: this proves nothing about {_listed(outputs)}; "
            f"{remedy}."
        )


def _listed(outputs: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in outputs[:3])
    return shown + (f" and {len(outputs) - 3} more" if len(outputs) > 3 else "")


def _uneven(details: Tree, params: Parity) -> Iterator[str]:
    """Outputs that pass as a whole although parts of them, whose values are smaller, would not."""
    for name, output in details["outputs"].items():
        limit = tolerance_of(name, output["kind"], params).max_nrmse
        parts = output.get("parts_nrmse")  # metrics of older versions lack it
        if limit is None or parts is None or output["nrmse"] is None or output["nrmse"] > limit:
            continue
        small = SMALL * max(output["parts_std"])
        above = {
            at: nrmse
            for at, (nrmse, std) in enumerate(zip(parts, output["parts_std"], strict=True))
            if nrmse is not None and nrmse > limit and std < small
        }
        if above:
            worst = max(above, key=lambda at: above[at])
            yield (
                f"max_nrmse holds for all values of '{name}' together, but not for {len(above)} of {len(parts)} parts "
                f"along axis {output['parts_axis']} whose values are much smaller (at index {worst} it is "
                f"{above[worst]:.2g}): this proves little about them. Give values of different kinds, such as boxes "
                "and scores, an output each."
            )


def _proving_rule(median: Tree, name: str) -> str:
    """Which rule a model that answers the median would fail."""
    output, decisions = median["outputs"][name], median["decisions"]
    nrmse = output.get("nrmse") or 0.0
    if nrmse > LEAST_NRMSE:
        return f"set parity.outputs.{name}.max_nrmse, e.g. to {min(PROVING_NRMSE, nrmse / 2):.1g}"
    if decisions["flips"] and decisions["flips"] > PROVING_FLIP_RATE * decisions["count"]:
        return f"set parity.max_flip_rate, e.g. to {PROVING_FLIP_RATE:g}"
    return "fp32 gives (almost) the same answer to every sample, so give export samples that differ"


def _too_few(details: Tree, params: Parity) -> Iterator[str]:
    samples = details["judged"]["samples"]
    if same_model(details):
        return
    for rule, needed in samples_needed(details, params).items():
        if samples < needed and rule == "abs_tol":
            share = upper_bound(0, samples)
            judged = f"{samples} sample{'s' * (samples != 1)}"
            yield (
                f"With {judged}, up to {share:.1%} of all samples may exceed abs_tol (95 % confidence); with {needed} "
                "it would be 1 %."
            )
        elif samples < needed:
            yield f"{rule} {params.max_flip_rate:g} needs at least {needed} judged samples as proof, not {samples}."


def _serving(details: Tree) -> Iterator[str]:
    judged = details["judged"]
    if judged["batch"] != judged["batch_size"]:
        yield (
            f"Served in batches of {judged['batch']}, as the model and its data require, not of serving.batch_size "
            f"{judged['batch_size']}."
        )
    if judged["samples"] < judged["batch"]:
        yield f"The judged samples ({judged['samples']}) do not fill a batch of {judged['batch']}: they were repeated."


def _batch(details: Tree, params: Parity) -> Iterator[str]:
    judged, effect = details["judged"], details["batch_effect"]
    for name, moved in effect["outputs"].items():
        limit = _movement_limit(name, details, params)
        serving, large, error = (moved[key] or 0.0 for key in ("serving", "large", "large_error"))
        if limit is None or max(large, serving) <= limit or error <= limit:
            continue
        if serving > limit:
            yield (
                f"'{name}' of the same sample moves by up to {serving:.2g} between batches of 1 and of "
                f"{judged['batch']}: the answer depends on the rest of the batch."
            )
        else:
            yield (
                f"In batches of {effect['large_batch']}, '{name}' of the same samples moves by up to {large:.2g} and "
                f"differs from fp32 by {error:.2g}: this verdict only holds for batches of {judged['batch']}."
            )


def _mixing(details: Tree, params: Parity) -> Iterator[str]:
    effect = details["batch_effect"]
    for name, moved in effect["outputs"].items():
        limit = _movement_limit(name, details, params)
        by = moved.get("fp32") or 0.0  # metrics of older versions lack it
        if limit is not None and by > limit:
            yield (
                f"In batches of {effect['large_batch']}, '{name}' of the same samples moves by up to {by:.2g} in fp32 "
                "too: the model mixes the samples of a batch."
            )


def _padding(details: Tree, params: Parity) -> Iterator[str]:
    padding = details["batch_effect"]["padding"]
    if padding["int8_max_abs"] is not None:
        moves = f"move by up to {padding['int8_max_abs']:.2g} in INT8 and by {padding['fp32_max_abs']:.2g} in fp32"
        if not (padding["int8_max_abs"] or padding["fp32_max_abs"]):
            moves = "do not move, in INT8 or in fp32"
        yield (
            f"Padded from {padding['length']} to {padding['padded']} positions ({padding['mask']}), the same samples "
            f"{moves}."
        )
    elif params.padding is not None:
        yield f"Padding by {params.padding} was not tried: {padding['reason']}."


def same_model(details: Tree) -> bool:
    """Whether both files hold the same model: then no sample can differ, judged or not."""
    hashes = details["judged"].get("sha256")  # the median's figures lack them
    return hashes is not None and hashes["fp32"] == hashes["int8"]


def batch_effect_is_noted(details: Tree, params: Parity) -> bool:
    """Whether an output moves with the batch by more than its tolerance."""
    return any(_batch(details, params))


def _movement_limit(name: str, details: Tree, params: Parity) -> float | None:
    """The batch effect above which an output gets a note: abs_tol, or max_nrmse as a share of the output's range."""
    output = details["outputs"][name]
    tolerance = tolerance_of(name, output["kind"], params)
    if tolerance.abs_tol is not None or tolerance.max_nrmse is None or output["high"] is None or output["low"] is None:
        return tolerance.abs_tol
    return tolerance.max_nrmse * float(output["high"] - output["low"])


def _decisions(details: Tree, params: Parity) -> Iterator[str]:
    decisions, judged, probabilities = details["decisions"], details["judged"], details["probabilities"]
    if params.threshold is not None and judged["threshold"] is None:
        yield f"parity.threshold is set, but no output has one or two scores per row; {judged['decision']} decides."
    if decisions["confident_flips"]:
        yield (
            f"{decisions['confident_flips']} of {decisions['flips']} flips are confident: "
            "fp32 decided by a margin of 0.1 or more."
        )
    before, after = probabilities["ece_fp32"], probabilities["ece_int8"]
    if before is not None and after is not None and abs(after - before) > ECE_SHIFT:
        yield f"The expected calibration error of the probabilities changes from {before:.3f} to {after:.3f}."


def _labels(details: Tree) -> Iterator[str]:
    if details["task"]["reason"] == UNFIT:
        yield (
            "The task metric was not computed, because the labels do not match any output. Give the class of each "
            "decision, as an index or as the model returns it, or one number for each value of an output."
        )


def _logarithms(details: Tree) -> Iterator[str]:
    for name in details["judged"].get("logarithms", ()):  # metrics of older versions lack it
        yield f"'{name}' holds logarithms of probabilities; the probabilities are compared."
