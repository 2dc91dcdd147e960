"""Rewriting the float model, without changing what it computes, so that its weights can be reached and named."""

from collections.abc import Callable
from dataclasses import dataclass

from onnx import ModelProto

from stages.quantize import check
from stages.quantize.check import Reference
from stages.quantize.normalise import constants, functions, fused, half_precision, inputs, names, opset, sparse

Pass = Callable[[ModelProto], tuple[ModelProto, bool]]
"""Gives a rewritten copy and True, or the model itself and False. What it raises undoes it."""

PASSES: tuple[tuple[str, Pass], ...] = (
    ("opset imports put right", opset.repair_imports),
    ("initializers taken off the inputs", inputs.drop_listed_initializers),
    ("local functions inlined", functions.inline),
    ("fused operators taken apart", fused.take_apart),
    ("sparse weights made dense", sparse.densify),
    (f"opset converted to {opset.OLDEST}", opset.convert),
    ("constant weights computed", constants.fold),
    ("nodes named", names.name_nodes),
)
"""In this order: each may rely on those before it."""

WIDENED = "float16 made float32"


@dataclass(frozen=True)
class Step:
    """A pass that had something to do: its name, and why it was undone (empty: it holds)."""

    name: str
    undone: str = ""


def normalise(model: ModelProto, expected: Reference) -> tuple[ModelProto, list[Step]]:
    """Apply every pass; one that fails, or after which the model is not the same, is undone.

    Args:
        model: the float model; not changed.
        expected: what it does.
    """
    everything, steps = _apply(model, expected, checked=False)
    if any(step.undone for step in steps) or (steps and check.difference(everything, expected)):
        everything, steps = _apply(model, expected, checked=True)
    wide, modified = half_precision.widen(everything)
    if not modified:
        return everything, steps
    # Float16 rounds coarsely, so that the float32 model need only be sane beside it.
    problem = check.fault(wide, expected)
    return everything if problem else wide, [*steps, Step(WIDENED, problem)]


def _apply(model: ModelProto, expected: Reference, checked: bool) -> tuple[ModelProto, list[Step]]:
    steps = []
    for name, apply in PASSES:
        try:
            candidate, modified = apply(model)
        except Exception as error:  # onnx raises what it likes; a pass that fails is one that is not applied
            steps.append(Step(name, " ".join(str(error).split())[:200] or type(error).__name__))
            continue
        if not modified:
            continue
        problem = check.difference(candidate, expected) if checked else ""
        steps.append(Step(name, problem))
        if not problem:
            model = candidate
    return model, steps
