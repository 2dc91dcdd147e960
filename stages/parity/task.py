"""The task metric of both models: which one applies, its change, and whether that is beyond chance."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stages.common.compare import Comparison

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Task:
    """One metric on the labels.

    Attributes:
        metric: accuracy, auc, r2 or none.
        fp32: its value for fp32.
        int8: its value for INT8.
        more: figures that stand beside it.
        words: the change, and whether it is beyond chance.
        reason: why there is no metric, else empty.
    """

    metric: str = "none"
    fp32: float | None = None
    int8: float | None = None
    more: Mapping[str, float | None] = field(default_factory=dict)
    words: str = ""
    reason: str = ""


def task(comparison: Comparison) -> Task:
    """Accuracy where decisions can be held against labels, else AUC of binary scores, else R2 of numbers."""
    accuracy, auc, regression = comparison.accuracy, comparison.auc, comparison.regression
    areas = {"auc_fp32": auc.area(0), "auc_int8": auc.area(1)} if auc.area(0) is not None else {}
    if accuracy.count:
        p = accuracy.p_value or 0.0
        words = (
            f"{accuracy.only_reference} right in fp32 only, {accuracy.only_candidate} in int8 only: "
            f"{_chance(p < SIGNIFICANT)} (McNemar p = {p:.2g})"
        )
        return Task(
            "accuracy",
            accuracy.reference,
            accuracy.candidate,
            {**_change(accuracy.reference, accuracy.candidate), "mcnemar_p": p, **areas},
            words,
        )
    if areas:
        before, after = areas.values()
        interval = auc.change95()
        return Task("auc", before, after, _change(before, after, interval), _words(interval))
    if regression.r2(0) is not None:
        before, after, interval = regression.r2(0), regression.r2(1), regression.change95()
        errors = {"mae_fp32": regression.mean_absolute(0), "mae_int8": regression.mean_absolute(1)}
        return Task("r2", before, after, {**_change(before, after, interval), **errors}, _words(interval))
    return Task(reason="no labels, or none that fit an output")


def _change(
    before: float | None, after: float | None, interval: tuple[float, float] | None = None
) -> dict[str, float | None]:
    if before is None or after is None:
        return {}
    ends = {} if interval is None else {"change_low95": interval[0], "change_high95": interval[1]}
    return {"change": after - before, **ends}


def _words(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f"{_chance(low > 0 or high < 0)} (95 % interval of the change {low:+.2g} to {high:+.2g})"


def _chance(beyond: bool) -> str:
    return "beyond chance" if beyond else "within chance"
