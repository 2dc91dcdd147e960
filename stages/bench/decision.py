"""What to deploy, and why, in a sentence that ends with what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stages.bench.interval import Interval

Deploy = Literal["int8", "fp32"]


@dataclass(frozen=True)
class Evidence:
    """All that the decision rests on.

    Attributes:
        quantized: whether quantize changed anything.
        without_int8: operator types of the model that have no INT8 form: trees and the like.
        parity_passed: the verdict of parity.
        speedup: at the serving batch.
        size_ratio: size of the INT8 model over that of fp32.
        max_size_ratio: what the gate allows, None where it does not ask.
        place: the machine, threads and batch that the speed-up holds for.
        overhead: that the call itself takes much of the time, in a sentence without its stop, or nothing.
        operators: what the profile says about the INT8 model's time, in a sentence without its stop, or nothing.
        remedy: what to do about a slower model, in a sentence without its stop.
        noise: what disturbed the measurement, in words, or nothing.
    """

    quantized: bool
    without_int8: Sequence[str]
    parity_passed: bool
    speedup: Interval
    size_ratio: float
    max_size_ratio: float | None
    place: str
    overhead: str
    operators: str
    remedy: str
    noise: str


@dataclass(frozen=True)
class Decision:
    """The model to deploy, and why."""

    deploy: Deploy
    reason: str


def decide(evidence: Evidence) -> Decision:
    """INT8 where parity passed and it is faster, or as fast and smaller by the gate's rule; fp32 otherwise."""
    if not evidence.quantized:
        return Decision("fp32", _nothing_quantized(evidence))
    speed = f"{evidence.speedup} {evidence.place}"
    if not evidence.parity_passed:
        return Decision(
            "fp32",
            f"Parity missed its tolerances, which no speed makes up for (speed-up {speed}). Keep the nodes at fault "
            "float by quantize.exclude_nodes, or widen parity.abs_tol and parity.mean_tol if such answers will do.",
        )
    deploy: Deploy
    match evidence.speedup.verdict:
        case "faster":
            deploy, reason = "int8", f"Parity passed, and INT8 is faster: speed-up {speed}. {_size(evidence)}."
        case "equivalent" if _small_enough(evidence):
            deploy = "int8"
            reason = f"Parity passed, and INT8 is as fast as fp32 (speed-up {speed}). {_size(evidence)}."
        case "equivalent":
            deploy = "fp32"
            reason = f"INT8 is as fast as fp32 (speed-up {speed}), and not small enough. {_size(evidence)}. Ship fp32."
        case "slower":
            deploy = "fp32"
            reason = _sentences(
                f"INT8 is slower than fp32: speed-up {speed}", evidence.operators, evidence.overhead, evidence.remedy
            )
        case "inconclusive":
            deploy = "fp32"
            reason = _sentences(
                f"The speed-up {speed} is too uncertain to tell it from 1, so fp32 stays",
                f"While it was timed {evidence.noise}" if evidence.noise else "",
                evidence.overhead,
                "Bench again on a quieter machine, or raise bench.max_seconds",
            )
    return Decision(deploy, reason)


def _sentences(*parts: str) -> str:
    return " ".join(f"{part}." for part in parts if part)


def _nothing_quantized(evidence: Evidence) -> str:
    if evidence.without_int8:
        return (
            f"Nothing was quantized: {', '.join(evidence.without_int8)} has no INT8 form; trees and linear models of "
            "ai.onnx.ml gain nothing. Skip quantization and ship fp32."
        )
    return (
        "Nothing was quantized, so both files are the same model (metrics/details/nodes.csv says why). "
        "Ship fp32, or try another quantize.method or more quantize.op_types."
    )


def _small_enough(evidence: Evidence) -> bool:
    return evidence.size_ratio < 1 and (
        evidence.max_size_ratio is None or evidence.size_ratio <= evidence.max_size_ratio
    )


def _size(evidence: Evidence) -> str:
    limit = "" if evidence.max_size_ratio is None else f" (gate.max_size_ratio is {evidence.max_size_ratio:g})"
    if _small_enough(evidence):
        return f"Its file is {1 / evidence.size_ratio:.2g} times smaller"
    return f"Its file has {evidence.size_ratio:.2f} times the size of the fp32 file{limit}"
