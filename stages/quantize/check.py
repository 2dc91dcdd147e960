"""Is a model still what the source is? It loads, keeps the interface, runs, and its outputs agree."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnxruntime as ort
from onnx import ModelProto

from stages.common.base.errors import StageError
from stages.common.data import outputs
from stages.common.model import sessions
from stages.common.model.sessions import Feed

Outputs = dict[str, np.ndarray]

SANE = 0.98
"""With 8-bit weights, an output whose cosine to the float one is below this is broken; parity judges finer."""

SANE_IN_4_BITS = 0.9
"""The same with 4-bit weights."""

SAME = 1e-4
"""How far a rewrite of the float model may move an output, as a share of its largest value: float rounding only."""


@dataclass(frozen=True)
class Reference:
    """What the float model does: its interface, the shapes it declares for its outputs, and what it gives on feeds."""

    interface: tuple[tuple[str, str], ...]
    declared: Mapping[str, Sequence[int | str | None]]
    feeds: Sequence[Feed]
    outputs: Sequence[Outputs]


def reference(session: ort.InferenceSession, feeds: Sequence[Feed], name: str) -> Reference:
    """Run the float model.

    Raises:
        StageError: it does not run.
    """
    declared = {each.name: each.shape for each in session.get_outputs()}
    return Reference(_interface(session), declared, feeds, [_run(session, feed, name) for feed in feeds])


def difference(model: ModelProto, expected: Reference) -> str:
    """Why a rewritten float model is not the same as the source; empty if it is."""
    return _problem(model, expected, "the rewritten model", _moved)


def fault(model: ModelProto, expected: Reference, least_cosine: float = SANE) -> str:
    """Why a quantized model must not be published; empty if it may."""
    return _problem(model, expected, "the quantized model", partial(_insane, least_cosine, expected.declared))


def _problem(
    model: ModelProto, expected: Reference, name: str, judged: Callable[[str, list[np.ndarray], list[np.ndarray]], str]
) -> str:
    try:
        session = sessions.open_session(model, name=name)
        interface = _interface(session)
        if interface != expected.interface:
            changed = sorted(set(interface) ^ set(expected.interface))[0]
            return f"its interface changed at {changed[0]}"
        got = [_run(session, feed, name) for feed in expected.feeds]
    except StageError as error:
        cause = error.__cause__
        return f"ONNX Runtime refuses it: {sessions.ort_words(cause)}" if isinstance(cause, Exception) else str(error)
    for output in expected.outputs[0] if expected.outputs else ():
        problem = judged(output, [each[output] for each in expected.outputs], [each[output] for each in got])
        if problem:
            return problem
    return ""


def _moved(output: str, floats: list[np.ndarray], others: list[np.ndarray]) -> str:
    for a, b in zip(floats, others, strict=True):
        if a.shape != b.shape:
            return f"output {output!r} has shape {b.shape} instead of {a.shape}"
        if a.dtype.kind != "f":
            if not np.array_equal(a, b):
                return f"output {output!r} changed"
            continue
        limit = SAME * max(1e-6, float(np.max(np.abs(a), initial=0, where=np.isfinite(a))))
        if not np.allclose(a, b, rtol=0, atol=limit, equal_nan=True):
            with np.errstate(invalid="ignore"):
                return f"output {output!r} moved by {np.nanmax(np.abs(a - b)):.2g}"
    return ""


def _insane(
    least_cosine: float,
    declared: Mapping[str, Sequence[int | str | None]],
    output: str,
    floats: list[np.ndarray],
    others: list[np.ndarray],
) -> str:
    product = squares_a = squares_b = 0.0
    for a, b in zip(floats, others, strict=True):
        if a.shape != b.shape:
            if _as_declared(a.shape, declared[output]) and _as_declared(b.shape, declared[output]):
                continue  # how many boxes a detector finds, say, hangs on a threshold: that is for parity to judge
            return f"output {output!r} has shape {b.shape} instead of {a.shape}"
        if a.dtype.kind != "f":
            continue
        finite = np.isfinite(a)
        if not np.all(np.isfinite(b[finite])):
            return f"output {output!r} is not finite where that of the float model is"
        x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
        product += float(x @ y)
        squares_a += float(x @ x)
        squares_b += float(y @ y)
    if squares_a and (cosine := product / max(math.sqrt(squares_a * squares_b), 1e-300)) < least_cosine:
        return f"output {output!r} has cosine {cosine:.3f} to that of the float model, below {least_cosine}"
    return ""


def _as_declared(shape: tuple[int, ...], declared: Sequence[int | str | None]) -> bool:
    sizes = zip(shape, declared, strict=False)
    return len(shape) == len(declared) and all(not isinstance(want, int) or want == have for have, want in sizes)


def _interface(session: ort.InferenceSession) -> tuple[tuple[str, str], ...]:
    """Name and type of every input and output, in order.

    Not the shapes: ONNX Runtime infers them anew, finer for some models and coarser for others, whatever is declared.
    """
    return tuple((each.name, each.type) for each in (*session.get_inputs(), *session.get_outputs()))


def _run(session: ort.InferenceSession, feed: Feed, name: str) -> Outputs:
    names = [each.name for each in session.get_outputs()]
    return outputs.as_arrays(names, sessions.run(session, feed, name=name))
