"""May a quantized model be published? It loads, keeps the interface, runs, and no output is broken."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from stages.common.graph import equivalence
from stages.common.graph.equivalence import Reference

SANE = 0.98
"""With 8-bit weights, an output whose cosine to the float one is below this is broken; parity judges finer."""

SANE_IN_4_BITS = 0.9
"""The same with 4-bit weights."""


def fault(model: ir.Model, expected: Reference, least_cosine: float = SANE) -> str:
    """Why a quantized model must not be published; empty if it may."""
    judge = partial(_broken, least_cosine, expected.declared)
    return equivalence.problem(model, expected, "the quantized model", judge)


def _broken(
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
                continue  # how many boxes a detector finds, say, depends on a threshold: that is for parity to judge
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
