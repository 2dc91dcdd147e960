"""What quantize runs models on: samples of the search split, or generated inputs without evaluation data."""

from collections.abc import Callable, Iterator

import onnxruntime as ort

from stages.common.base.errors import StageError
from stages.common.data import feeding
from stages.common.data.evaldata import EvalData
from stages.common.data.feeding import generated_feed
from stages.common.model.sessions import Feed

MADE_UP_FEEDS = 8
"""The number of generated feeds."""

SearchFeeds = Callable[[int], Iterator[Feed]]
"""Gives the feeds of the first samples, as many as it is called with, anew on each call."""


def search_feeds(session: ort.InferenceSession, data: EvalData | None) -> SearchFeeds:
    """Feeds for the model of `session`; without data, generated inputs.

    Raises:
        StageError: the data do not fit the model.
    """
    if data is None:
        return lambda samples: (
            generated_feed(session, batch=1, seed=seed) for seed in range(min(samples, MADE_UP_FEEDS))
        )
    feeding.check_fit(session, data.inputs, data.layout)
    batch = feeding.feed_batch(session, data.layout, wanted=1)
    return lambda samples: _of_data(data, batch, samples)


def _of_data(data: EvalData, batch: int, samples: int) -> Iterator[Feed]:
    """The first `samples` of the search split in feeds of `batch`; an incomplete last one is left out."""
    indices = data.indices("search")
    if not len(indices):  # a single sample belongs to the judge; nothing is chosen by it here
        indices = data.indices("judge")
    if data.layout == "samples" and len(indices) < batch:
        raise StageError(
            f"The evaluation data have {len(indices)} samples to search on, but the model takes {batch} at once. "
            "Give at least four times as many samples as that."
        )
    for chunk in data.batches(indices[: max(batch, samples)], batch):
        if data.layout == "feeds" or len(chunk.indices) == batch:
            yield chunk.feed
