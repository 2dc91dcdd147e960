"""The task metric of both models: which one applies, its change, and whether that is beyond chance."""

from dataclasses import dataclass

from stages.common.compare import Comparison


@dataclass(frozen=True)
class Task:
    """One metric on the labels. `reason` says why there is none; `beyond_chance` is a sentence about the change."""

    metric: str = "none"
    fp32: float | None = None
    int8: float | None = None
    beyond_chance: str = ""
    reason: str = ""


def task(comparison: Comparison) -> Task:
    """Accuracy where decisions can be held against labels, else R2 of numbers, else AUC of binary scores."""
    accuracy = comparison.accuracy
    if accuracy.count:
        p = accuracy.p_value
        words = (
            f"{accuracy.only_reference} right in fp32 only, {accuracy.only_candidate} in int8 only, "
            f"McNemar p = {p:.2g}{_beyond(p is not None and p < 0.05)}"
        )
        return Task("accuracy", accuracy.reference, accuracy.candidate, words)
    if comparison.auc.area(0) is not None:
        return Task("auc", comparison.auc.area(0), comparison.auc.area(1), _interval(comparison.auc.change95()))
    if comparison.regression.r2(0) is not None:
        regression = comparison.regression
        return Task("r2", regression.r2(0), regression.r2(1), _interval(regression.change95()))
    return Task(reason="no labels that fit an output")


def _interval(change: tuple[float, float] | None) -> str:
    if change is None:
        return ""
    low, high = change
    return f"95 % interval of the change {low:+.2g} to {high:+.2g}{_beyond(low > 0 or high < 0)}"


def _beyond(yes: bool) -> str:
    return ": beyond chance" if yes else ": within chance"
