"""Cleaning: the published float model is as good as it gets with the same answers, so INT8 has to earn its speed-up."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from stages.common.data import feeding
from stages.common.data.evaldata import EvalData, fill
from stages.common.graph import cleaning, equivalence
from stages.common.graph.cleaning import Step
from stages.common.graph.equivalence import Reference
from stages.common.graph.passes import compute_constants, drop_listed_initializers, inline_functions, share_constants
from stages.common.model import model_file

CHECK_FEEDS = 16
"""Most feeds on which a cleaned model is compared with its source."""

TINY_BYTES = 4096
"""Weights that are also inputs remain inputs if they are smaller than this in total: ONNX Runtime packs constant
weights for its kernels, which costs more time than it saves if they are tiny (cntk_scan: 0.88 times the speed)."""

_GROWTH = 0.01
_GROWING = (inline_functions.apply, compute_constants.apply)
"""Passes that may enlarge the weights: a function called twice, a weight cast from float16. The published model stays
as small as its source (to _GROWTH); ONNX Runtime does the same at load anyway."""


def reference_answers(session: ort.InferenceSession, data: EvalData, origin: str) -> Reference:
    """The source's answers to some of the evaluation data; errors call the source `origin`.

    Raises:
        StageError: the model does not run on the evaluation data.
    """
    batch = feeding.feed_batch(session, data.layout, wanted=1)
    samples = fill(np.arange(min(data.samples, CHECK_FEEDS * batch)), batch)
    whole = samples[: len(samples) // batch * batch]
    return equivalence.reference(session, [chunk.feed for chunk in data.batches(whole, batch)], origin)


def clean_model(model: ir.Model, expected: Reference) -> tuple[ir.Model, list[Step]]:
    """Clean a copy of a float model, checked against `reference_answers`; returns it with the steps done or undone."""
    listed = [value.const_value for value in model.graph.inputs if value.is_initializer()]
    tiny = sum(tensor.nbytes for tensor in listed if tensor is not None) < TINY_BYTES
    leave = [share_constants.apply, *([drop_listed_initializers.apply] if tiny else [])]
    cleaned, steps = cleaning.clean(model, expected, leave)
    undone: list[Step] = []
    for name, apply in cleaning.PASSES:
        growth = model_file.weight_bytes(cleaned) - model_file.weight_bytes(model)
        if growth <= _GROWTH * model_file.weight_bytes(model) + TINY_BYTES:
            break
        if apply in _GROWING and any(step.name == name and not step.undone for step in steps):
            leave.append(apply)
            cleaned, steps = cleaning.clean(model, expected, leave)
            undone.append(Step(name, f"the weights would grow by {growth / 1e6:.2g} MB"))
    return cleaned, [*steps, *undone]
