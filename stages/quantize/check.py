"""Whether a quantized model may be published: it must load, keep its interface, run, and give no broken output."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from stages.common.graph import equivalence
from stages.common.graph.equivalence import Reference
from stages.common.model import sessions
from stages.common.model.sessions import Feed

MIN_COSINE = 0.98
"""With 8-bit weights, an output with a lower cosine similarity to fp32 is broken. Parity is stricter."""

MIN_COSINE_4_BIT = 0.9
"""The same for 4-bit weights."""

ENOUGH_FEEDS = 4
"""With at least this many feeds, the one that moves most does not count: fp32 itself may be undecided on it."""

MIN_SPAN = 0.5
"""The share of an output's range that INT8 should keep."""


@dataclass(frozen=True)
class Finding:
    """What the check found.

    Attributes:
        problem: why the model must not be published; empty if it may be.
        cosine: the lowest cosine similarity of an output to fp32, see `ENOUGH_FEEDS`; None if the model does not run or
            an output is broken in another way.
    """

    problem: str = ""
    cosine: float | None = 1.0


def fault(model: ir.Model, expected: Reference, min_cosine: float = MIN_COSINE) -> str:
    """Why a quantized model must not be published; empty if it may be published."""
    return examine(model, expected, min_cosine).problem


def examine(model: ir.Model, expected: Reference, min_cosine: float = MIN_COSINE) -> Finding:
    """Whether a quantized model may be published."""
    cosines: dict[str, float] = {}
    judge = partial(_broken, cosines, expected.declared)
    if problem := equivalence.problem(model, expected, "the quantized model", judge):
        return Finding(problem, None)
    lowest = min(cosines.values(), default=1.0)
    for output, cosine in cosines.items():
        if cosine < min_cosine:
            found = f"output {output!r} has a cosine similarity of {cosine:.3f} to fp32, below {min_cosine}"
            return Finding(found, lowest)
    return Finding("", lowest)


def collapsed_outputs(quantized: ir.Model, model: ir.Model, feeds: Sequence[Feed]) -> list[str]:
    """A sentence on each float output that, in INT8 only, is constant on some feed or loses most of its range."""
    both = [sessions.open_session(candidate) for candidate in (model, quantized)]
    names = [output.name for output in both[0].get_outputs()]
    constant = dict.fromkeys(names, 0)
    spans = {name: [[np.inf, -np.inf], [np.inf, -np.inf]] for name in names}
    for feed in feeds:
        before, after = (sessions.answers(session, feed, name="the model") for session in both)
        for name in names:
            pair = before[name], after[name]
            if any(array.dtype.kind != "f" or array.size < 2 for array in pair):
                continue
            constant[name] += bool(np.ptp(pair[0]) > 0 and np.ptp(pair[1]) == 0)
            for span, array in zip(spans[name], pair, strict=True):
                span[:] = min(span[0], float(array.min())), max(span[1], float(array.max()))
    sentences = []
    for name in names:
        (low, high), (int8_low, int8_high) = spans[name]
        if constant[name]:
            sentences.append(
                f"On {constant[name]} of {len(feeds)} feeds all values of the output {name!r} are equal in INT8, but "
                "not in fp32: the calibrated ranges are too coarse for these feeds."
            )
        elif high > low and int8_high - int8_low < MIN_SPAN * (high - low):
            sentences.append(
                f"The output {name!r} keeps only {(int8_high - int8_low) / (high - low):.0%} of its range in INT8: "
                "values outside the calibrated ranges are clipped. Calibrate on more samples, or with minmax."
            )
    return sentences


def _broken(
    cosines: dict[str, float],
    declared: Mapping[str, Sequence[int | str | None]],
    output: str,
    floats: list[np.ndarray],
    others: list[np.ndarray],
) -> str:
    """What is broken in an output; empty if nothing is, and then `cosines` gets its cosine similarity."""
    sums = []
    for a, b in zip(floats, others, strict=True):
        if a.shape != b.shape:
            if _as_declared(a.shape, declared[output]) and _as_declared(b.shape, declared[output]):
                continue  # e.g. a detector's number of boxes, which depends on a threshold: parity judges that
            return f"output {output!r} has shape {b.shape} instead of {a.shape}"
        if a.dtype.kind != "f":
            continue
        finite = np.isfinite(a)
        if not np.all(np.isfinite(b[finite])):
            return f"output {output!r} has NaN or infinity where fp32 has none"
        x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
        sums.append((float(np.square(x - y).sum()), float(x @ y), float(x @ x), float(y @ y)))
    if len(sums) >= ENOUGH_FEEDS:
        sums.remove(max(sums))
    _, product, squares_a, squares_b = np.sum(sums, axis=0) if sums else np.zeros(4)
    if squares_a:
        cosines[output] = float(product / max(math.sqrt(squares_a * squares_b), 1e-300))
    return ""


def _as_declared(shape: tuple[int, ...], declared: Sequence[int | str | None]) -> bool:
    sizes = zip(shape, declared, strict=False)
    return len(shape) == len(declared) and all(not isinstance(want, int) or want == have for have, want in sizes)
