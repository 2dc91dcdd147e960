"""Whether a rewritten model loads, keeps the interface of its source, runs, and gives the same outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from stages.common.base.errors import StageError
from stages.common.model import sessions
from stages.common.model.sessions import Feed

Outputs = dict[str, np.ndarray]

Judge = Callable[[str, list[np.ndarray], list[np.ndarray]], str]
"""From an output's name and its values on all feeds, before and after: what is wrong with it; empty if it is right."""

SAME = 1e-4
"""How far a rewrite may move an output, as a share of its largest value: float rounding only."""


@dataclass(frozen=True)
class Reference:
    """The float model's interface, the shapes it declares for its outputs, and its outputs on feeds."""

    interface: tuple[tuple[str, str], ...]
    declared: Mapping[str, Sequence[int | str | None]]
    feeds: Sequence[Feed]
    outputs: Sequence[Outputs]


def reference(session: ort.InferenceSession, feeds: Sequence[Feed], name: str) -> Reference:
    """Run the float model.

    Raises:
        StageError: it does not run.
    """
    declared = {output.name: output.shape for output in session.get_outputs()}
    return Reference(
        _interface(session), declared, feeds, [sessions.answers(session, feed, name=name) for feed in feeds]
    )


def difference(model: ir.Model, expected: Reference) -> str:
    """Why a rewritten float model is not equivalent to its source; empty if it is."""
    return problem(model, expected, "the rewritten model", _moved)


def problem(model: ir.Model, expected: Reference, name: str, judge: Judge) -> str:
    """Why a model does not load, changes the interface, does not run, or fails `judge` on an output; else empty."""
    try:
        session = sessions.open_session(model, name=name)
        interface = _interface(session)
        if interface != expected.interface:
            changed = sorted(set(interface) ^ set(expected.interface))
            return f"its interface changed at {changed[0][0]}" if changed else "its interface is in another order"
        runs = [sessions.answers(session, feed, name=name) for feed in expected.feeds]
    except StageError as error:
        cause = error.__cause__
        return f"ONNX Runtime refuses it: {sessions.ort_message(cause)}" if isinstance(cause, Exception) else str(error)
    for output in expected.outputs[0] if expected.outputs else ():
        fault = judge(output, [run[output] for run in expected.outputs], [run[output] for run in runs])
        if fault:
            return fault
    return ""


def _moved(output: str, floats: list[np.ndarray], others: list[np.ndarray]) -> str:
    """How an output differs by more than float rounding; empty if it does not."""
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


def _interface(session: ort.InferenceSession) -> tuple[tuple[str, str], ...]:
    """Name and type of every input and output, in order; no shapes, as ONNX Runtime infers its own."""
    return tuple((end.name, end.type) for end in (*session.get_inputs(), *session.get_outputs()))
