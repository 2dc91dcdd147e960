"""TransformedTargetRegressor, which skl2onnx cannot convert: its regressor, then nodes that invert the transform."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from stages.common.base.errors import StageError

Step = tuple[str, float | None]
"""An ONNX operator on the prediction, and its second operand; None for an operator with one operand."""

FUNCTIONS: dict[Any, tuple[Step, ...]] = {
    None: (),
    np.exp: (("Exp", None),),
    np.expm1: (("Exp", None), ("Sub", 1.0)),
    np.log: (("Log", None),),
    np.log1p: (("Add", 1.0), ("Log", None)),
    np.log10: (("Log", None), ("Mul", 1 / math.log(10))),
    np.sqrt: (("Sqrt", None),),
    np.square: (("Pow", 2.0),),
    np.sinh: (("Sinh", None),),
    np.arcsinh: (("Asinh", None),),
    np.reciprocal: (("Reciprocal", None),),
    np.negative: (("Neg", None),),
}
"""Inverse transforms of a target, in ONNX."""

AFFINE = frozenset({"MaxAbsScaler", "MinMaxScaler", "RobustScaler", "StandardScaler"})


def split(model: Any) -> tuple[Any, tuple[Step, ...]]:
    """An estimator without the transform of its target, and the steps that invert the transform.

    The estimator may be a TransformedTargetRegressor, or a pipeline that ends in one; any other is returned unchanged.

    Raises:
        StageError: the inverse has no ONNX form here.
    """
    if type(model).__name__ == "TransformedTargetRegressor":
        inner, steps = split(getattr(model.regressor_, "best_estimator_", model.regressor_))
        return inner, (*steps, *_back(model.transformer_))
    if type(model).__name__ == "Pipeline" and model.steps:
        name, last = model.steps[-1]
        inner, steps = split(last)
        if inner is not last:
            model = copy.copy(model)
            model.steps = [*model.steps[:-1], (name, inner)]
        return model, steps
    return model, ()


def append(proto: onnx.ModelProto, steps: Sequence[Step]) -> onnx.ModelProto:
    """Append the steps to the model's output, in float32."""
    output = proto.graph.output[0]
    for number, (op_type, operand) in enumerate(steps):
        inputs, result = [output.name], f"target_{number}"
        if operand is not None:
            inputs.append(f"{result}_operand")
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([operand], np.float32), inputs[1]))
        proto.graph.node.append(onnx.helper.make_node(op_type, inputs, [result], result))
        output.name = result
    return proto


def _back(transformer: Any) -> tuple[Step, ...]:
    """The steps that invert a transformer of the target."""
    kind = type(transformer).__name__
    if kind == "FunctionTransformer":
        function = transformer.inverse_func
        if function in FUNCTIONS and not transformer.inv_kw_args:
            return FUNCTIONS[function]
        kind = getattr(function, "__name__", str(function))
    elif kind in AFFINE and transformer.n_features_in_ == 1 and not getattr(transformer, "clip", False):
        zero, one = transformer.inverse_transform(np.array([[0.0], [1.0]]))[:, 0]
        return (("Mul", float(one - zero)), ("Add", float(zero)))
    known = ", ".join(f"np.{function.__name__}" for function in FUNCTIONS if function)
    raise StageError(
        f"The target of a TransformedTargetRegressor is inverted by {kind}, which export cannot write as ONNX; it can "
        f"write {known} and, for one target, {', '.join(sorted(AFFINE))}. Export the regressor_, and invert the "
        "transform in your service."
    )
