"""The inputs on which quantize runs models: the search split, or generated inputs without evaluation data."""

from collections.abc import Callable, Iterator

import onnxruntime as ort

from stages.common.base.errors import StageError
from stages.common.data import feeding
from stages.common.data.evaldata import EvalData
from stages.common.data.feeding import generated_feed
from stages.common.model.sessions import Feed

GENERATED_FEEDS = 8
"""The number of generated feeds."""

SearchFeeds = Callable[[int], Iterator[Feed]]
"""Iterates over the feeds of the first n samples, from the start on each call."""


def search_feeds(session: ort.InferenceSession, data: EvalData | None) -> SearchFeeds:
    """Feeds for the model of `session`: from `data`, or generated if `data` is None.

    Raises:
        StageError: the data does not fit the model.
    """
    if data is None:
        return lambda samples: (
            generated_feed(session, batch=1, seed=seed) for seed in range(min(samples, GENERATED_FEEDS))
        )
    feeding.check_fit(session, data.inputs, data.layout)
    batch = feeding.feed_batch(session, data.layout, wanted=1)
    return lambda samples: _of_data(data, batch, samples)


def _of_data(data: EvalData, batch: int, samples: int) -> Iterator[Feed]:
    """The first `samples` of the search split in feeds of `batch`; an incomplete last feed is left out."""
    indices = data.indices("search")
    if not len(indices):  # the only sample is in the judge split
        indices = data.indices("judge")
    if data.layout == "samples" and len(indices) < batch:
        found = f"{len(indices)} sample{'s' * (len(indices) != 1)}"
        raise StageError(
            f"The search split has {found}, but the model takes batches of {batch}. "
            f"Give export at least {4 * batch} samples."
        )
    for chunk in data.batches(indices[: max(batch, samples)], batch):
        if data.layout == "feeds" or len(chunk.indices) == batch:
            yield chunk.feed
