"""The constants that a rewrite reads, and why a weight has no INT8 form."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from stages.common.graph.walk import constant, default, name_of

OVERRIDABLE = "its weight is a model input with a default, which a caller may override"


class KeepFloatError(Exception):
    """The node stays float; `str()` is the reason. Raised before anything is emitted for the node."""


@dataclass(frozen=True)
class Constant:
    """The name and the values of a constant."""

    name: str
    values: np.ndarray


def read(value: ir.Value | None) -> Constant | None:
    """A constant; None if the value is not constant."""
    tensor = constant(value)
    return Constant(name_of(value), tensor.numpy()) if tensor is not None else None


def read_weight(value: ir.Value | None) -> Constant:
    """A weight.

    Raises:
        KeepFloatError: it is not constant, not float32, empty, or not finite.
    """
    weight = read(value)
    if weight is None:
        raise KeepFloatError(
            OVERRIDABLE if default(value) is not None else "its weight is computed while the model runs"
        )
    if weight.values.dtype != np.float32:
        raise KeepFloatError(f"its weight is {weight.values.dtype}; ONNX Runtime's INT8 kernels take float32 only")
    if weight.values.size == 0:
        raise KeepFloatError("its weight is empty: INT8 kernels return uninitialized memory for it")
    if not np.isfinite(weight.values).all():
        raise KeepFloatError("its weight contains NaN or infinity, which has no INT8 form")
    return weight
