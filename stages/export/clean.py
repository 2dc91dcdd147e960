"""Cleaning: the float model that is published is the best one that gives the same answers, before INT8 takes credit."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from stages.common.data import feeding
from stages.common.data.evaldata import EvalData
from stages.common.graph import cleaning, equivalence
from stages.common.graph.cleaning import Step
from stages.common.graph.passes import drop_listed_initializers

CHECK_FEEDS = 16
"""How many calls compare a cleaned model with its source."""

TINY_BYTES = 4096
"""Weights that are listed as inputs and smaller than this, all together, stay there: ONNX Runtime packs constant
weights for its kernels, which costs more time than it saves where they are tiny (cntk_scan: 0.88 times the speed)."""


def clean_model(
    model: ir.Model, session: ort.InferenceSession, data: EvalData, origin: str
) -> tuple[ir.Model, list[Step]]:
    """Clean a float model, and hold it against its source on evaluation data.

    Args:
        model: the float model; not changed.
        session: of that model.
        data: the evaluation data.
        origin: what to call the model in an error.

    Returns:
        The cleaned model, and what was done to it or undone.

    Raises:
        StageError: the model does not run on the evaluation data.
    """
    batch = feeding.feed_batch(session, data.layout, wanted=1)
    samples = feeding.fill(np.arange(min(data.samples, CHECK_FEEDS * batch)), batch)
    whole = samples[: len(samples) // batch * batch]
    expected = equivalence.reference(session, [chunk.feed for chunk in data.batches(whole, batch)], origin)
    return cleaning.clean(model, expected, [drop_listed_initializers.apply] if _tiny_weights(model) else [])


def _tiny_weights(model: ir.Model) -> bool:
    listed = [value.const_value for value in model.graph.inputs if value.is_initializer()]
    return bool(sum(tensor.nbytes for tensor in listed if tensor is not None) < TINY_BYTES)
