"""Which model to deploy, and why: a pure function of figures and rules."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stages.common.rule import Rule, failures
from stages.gate.inputs import Figures
from stages.gate.rules import nothing_quantized


@dataclass(frozen=True)
class Deployment:
    """The decision.

    Attributes:
        deploy: the model to ship.
        reason: why, in sentences.
        advice: the one command to run next; None if nothing needs to be done.
    """

    deploy: Literal["int8", "fp32"]
    reason: str
    advice: str | None = None


def decide(figures: Figures, rules: Sequence[Rule], bench: str = "bench") -> Deployment:
    """Deploy INT8 if no rule failed and it gains speed or size, else fp32.

    Args:
        figures: what the other stages measured.
        rules: the gate's rules, evaluated on `figures`.
        bench: the name of the stage bench in DVC commands.
    """
    decision = _decide(figures, failures(rules), bench)
    return replace(decision, reason=f"{decision.reason} {figures.drift}") if figures.drift else decision


def _decide(figures: Figures, failed: Sequence[Rule], bench: str) -> Deployment:
    if failed:
        return Deployment("fp32", " ".join(rule.message for rule in failed), _advice(figures, failed, bench))
    if not figures.quantized:
        return Deployment("fp32", nothing_quantized(figures), next(iter(figures.parity_advice), None))
    smaller = figures.size_ratio < 1
    speed = f"speed-up {figures.speedup} {figures.host}"
    match figures.speedup.verdict:
        case "faster":
            start = f"Parity passed, and INT8 is faster: {speed}."
        case "equivalent":
            start = f"Parity passed, and INT8 is as fast as fp32: {speed}."
        case "slower":
            start = f"Parity passed; INT8 is slower, which the gate's rules allow: {speed}."
        case _:
            start = f"Parity passed; whether INT8 is faster is unknown, and no rule requires it: {speed}."
    if smaller:
        return Deployment("int8", f"{start} Its file is {1 / figures.size_ratio:.2g} times smaller.")
    if figures.speedup.verdict == "faster":
        return Deployment("int8", f"{start} Its file is {figures.size_ratio:.2f} times the size of the fp32 file.")
    return Deployment("fp32", f"{start} Its file is not smaller, so INT8 gains nothing.")


def _advice(figures: Figures, failed: Sequence[Rule], bench: str) -> str | None:
    """The best command that parity tried and saw pass; if only the speed-up is inconclusive, to run bench again."""
    names = {rule.name for rule in failed}
    if names == {"min_speedup"} and figures.speedup.verdict == "inconclusive":
        return f"dvc repro --force --single-item {bench}"
    return next(iter(figures.parity_advice), None) if names - {"min_samples"} else None
