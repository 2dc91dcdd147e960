"""What to deploy, and why, in a sentence that ends with what to do."""

from dataclasses import dataclass
from typing import Literal

from stages.bench.interval import Interval

Deploy = Literal["int8", "fp32"]


@dataclass(frozen=True)
class Evidence:
    """All that the decision rests on.

    Attributes:
        quantized: whether quantize changed anything.
        tree_like: whether the model consists of operators of ai.onnx.ml, which have no INT8 form.
        parity_passed: the verdict of parity.
        speedup: at the serving batch.
        size_ratio: size of the INT8 model over that of fp32.
        max_size_ratio: what the gate allows, None where it does not ask.
        place: the machine, threads and batch that the speed-up holds for.
        operators: what the profile says about the INT8 model's time, in a sentence without a stop, or nothing.
        remedy: what to do about a slower model.
        noise: what disturbed the measurement, in words, or nothing.
    """

    quantized: bool
    tree_like: bool
    parity_passed: bool
    speedup: Interval
    size_ratio: float
    max_size_ratio: float | None
    place: str
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
            reason = f"INT8 is no faster than fp32 (speed-up {speed}), nor smaller. {_size(evidence)}. Ship fp32."
        case "slower":
            profile = f" {evidence.operators}." if evidence.operators else ""
            deploy, reason = "fp32", f"INT8 is slower than fp32: speed-up {speed}.{profile} {evidence.remedy}."
        case "inconclusive":
            noise = f" {evidence.noise}." if evidence.noise else ""
            deploy = "fp32"
            reason = (
                f"Inconclusive: the speed-up {speed} cannot be told from 1.{noise} Bench again on a quieter machine, "
                "or raise bench.max_seconds."
            )
    return Decision(deploy, reason)


def _nothing_quantized(evidence: Evidence) -> str:
    if evidence.tree_like:
        return (
            "Nothing was quantized: tree ensembles and other ai.onnx.ml operators have no INT8 form and gain nothing. "
            "Skip quantization and ship fp32."
        )
    return (
        "Nothing was quantized, so both files are the same model (metrics/nodes.csv says why). "
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
