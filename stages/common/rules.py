"""The rules: each holds one figure of the metrics against one limit of the params."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tabulate import tabulate

from stages.common.base.errors import StageError
from stages.common.base.params import Gate


class Outcome(StrEnum):
    """What became of a rule; `str()` is its mark."""

    PASSED = "ok"
    FAILED = "FAILED"
    OFF = "off"
    MOOT = "does not apply"


@dataclass(frozen=True)
class Verdict:
    """One rule: the figure, the limit, the outcome, and for a failure what it means and what to do."""

    rule: str
    value: str
    limit: str
    outcome: Outcome
    sentence: str = ""


@dataclass(frozen=True)
class Evidence:
    """The metrics of three stages, as their files hold them."""

    quantize: Mapping[str, Any]
    parity: Mapping[str, Any]
    bench: Mapping[str, Any]

    @property
    def quantized(self) -> bool:
        """Whether there is an INT8 model at all."""
        return bool(_at(self.quantize, "quantize", "status") == "quantized")

    @property
    def deploy(self) -> str:
        """Which model bench says to ship."""
        return str(_at(self.bench, "bench", "deploy"))

    @property
    def reason(self) -> str:
        """Why."""
        return str(_at(self.bench, "bench", "reason"))


def judge(evidence: Evidence, limits: Gate) -> list[Verdict]:
    """Hold the evidence against every rule, in the order in which they are shown.

    Raises:
        StageError: a figure is missing from the metrics.
    """
    return [_parity(evidence), _quantized(evidence, limits), _size(evidence, limits), _speed(evidence, limits)]


def table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts for a person."""
    rows = [(each.rule, each.value, each.limit, str(each.outcome)) for each in verdicts]
    text: str = tabulate(rows, headers=("rule", "value", "limit", ""), tablefmt="simple", disable_numparse=True)
    return text


def _parity(evidence: Evidence) -> Verdict:
    passed = _at(evidence.parity, "parity", "passed")
    return Verdict(
        "same answers",
        "passed" if passed else "missed",
        "passed",
        Outcome.PASSED if passed else Outcome.FAILED,
        "INT8 moves the answers beyond the tolerances: `python -m stages.parity` says which, and what to try.",
    )


def _quantized(evidence: Evidence, limits: Gate) -> Verdict:
    value = "quantized" if evidence.quantized else "nothing to quantize"
    if not limits.require_quantized:
        return Verdict("quantized", value, "", Outcome.OFF)
    return Verdict(
        "quantized",
        value,
        "quantized",
        Outcome.PASSED if evidence.quantized else Outcome.FAILED,
        "Nothing could be quantized, and gate.require_quantized is true: metrics/details/nodes.csv says why for each node.",
    )


def _size(evidence: Evidence, limits: Gate) -> Verdict:
    fp32, int8 = (_at(evidence.quantize, "quantize", "size", key) for key in ("fp32_mb", "int8_mb"))
    ratio = int8 / fp32
    if limits.max_size_ratio is None:
        return Verdict("size, INT8 over fp32", f"{ratio:.3f}", "", Outcome.OFF)
    limit = f"<= {limits.max_size_ratio:g}"
    if not evidence.quantized:
        return Verdict("size, INT8 over fp32", f"{ratio:.3f}", limit, Outcome.MOOT)
    return Verdict(
        "size, INT8 over fp32",
        f"{ratio:.3f}",
        limit,
        Outcome.PASSED if ratio <= limits.max_size_ratio else Outcome.FAILED,
        f"INT8 has {ratio:.3f} of the size of fp32, more than gate.max_size_ratio {limits.max_size_ratio:g}: "
        "metrics/details/nodes.csv says which weights stayed float.",
    )


def _speed(evidence: Evidence, limits: Gate) -> Verdict:
    low, high, found = (_at(evidence.bench, "bench", "speedup", key) for key in ("low95", "high95", "verdict"))
    value = "unknown" if low is None else f"{low:.3g} to {high:.3g}"
    rule = "speed-up, 95 % interval"
    if limits.min_speedup is None:
        return Verdict(rule, value, "", Outcome.OFF)
    limit = f"all >= {limits.min_speedup:g}"
    if not evidence.quantized:
        return Verdict(rule, value, limit, Outcome.MOOT)
    if low is None or found == "inconclusive":
        sentence = f"The speed-up is {value}: inconclusive, which is no pass. Bench again on a quieter machine."
        return Verdict(rule, value, limit, Outcome.FAILED, sentence)
    return Verdict(
        rule,
        value,
        limit,
        Outcome.PASSED if low >= limits.min_speedup else Outcome.FAILED,
        f"The 95 % interval of the speed-up, {value}, does not lie above gate.min_speedup {limits.min_speedup:g}.",
    )


def _at(tree: Mapping[str, Any], stage: str, *keys: str) -> Any:
    node: Any = tree
    for key in keys:
        if not isinstance(node, Mapping) or key not in node:
            raise StageError(f"metrics/{stage}.json has no {'.'.join(keys)}. Run {stage} again.")
        node = node[key]
    return node
